#include "core/rational.h"

#include <boost/multiprecision/cpp_int.hpp>
#include <cmath>
#include <new>
#include <ostream>
#include <utility>

#include "kernels/check.h"

namespace specmoe {
namespace {

using Number = boost::multiprecision::cpp_rational;
static_assert(sizeof(Number) <= 64 && alignof(Number) <= 16, "Rational::storage_ is too small for this Boost");

}  // namespace

// The storage holds a Number from construction to destruction.
static Number& number(std::array<std::byte, 64>& storage) {
  return *std::launder(reinterpret_cast<Number*>(storage.data()));
}
static const Number& number(const std::array<std::byte, 64>& storage) {
  return *std::launder(reinterpret_cast<const Number*>(storage.data()));
}

Rational::Rational(int value) { new (storage_.data()) Number(value); }
Rational::Rational(double value) {
  SPECMOE_CHECK(std::isfinite(value), "exact fraction: expected a finite number, got ", value);
  new (storage_.data()) Number(value);
}
Rational::Rational(const Rational& other) { new (storage_.data()) Number(number(other.storage_)); }
Rational::Rational(Rational&& other) noexcept { new (storage_.data()) Number(std::move(number(other.storage_))); }
Rational& Rational::operator=(const Rational& other) {
  number(storage_) = number(other.storage_);
  return *this;
}
Rational& Rational::operator=(Rational&& other) noexcept {
  number(storage_) = std::move(number(other.storage_));
  return *this;
}
Rational::~Rational() { number(storage_).~Number(); }

Rational& Rational::operator+=(const Rational& other) {
  number(storage_) += number(other.storage_);
  return *this;
}
Rational& Rational::operator-=(const Rational& other) {
  number(storage_) -= number(other.storage_);
  return *this;
}
Rational& Rational::operator*=(const Rational& other) {
  number(storage_) *= number(other.storage_);
  return *this;
}
Rational& Rational::operator/=(const Rational& other) {
  SPECMOE_CHECK(!number(other.storage_).is_zero(), "exact fraction: division by zero");
  number(storage_) /= number(other.storage_);
  return *this;
}

Rational::operator double() const { return static_cast<double>(number(storage_)); }
std::string Rational::to_string() const { return number(storage_).str(); }
int Rational::compare(const Rational& other) const { return number(storage_).compare(number(other.storage_)); }
std::ostream& operator<<(std::ostream& out, const Rational& value) { return out << value.to_string(); }

}  // namespace specmoe
