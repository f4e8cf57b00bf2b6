#pragma once

#include <array>
#include <cstddef>
#include <iosfwd>
#include <string>

namespace specmoe {

/// An exact fraction of integers of any size: the scalar of exact proofs. Boost.Multiprecision does the work in
/// rational.cpp, so that the headers of decision code compile without it.
class Rational {
 public:
  Rational() : Rational(0) {}
  Rational(int value);  // NOLINT(google-explicit-constructor): literals 0 and 1 of templated decision code
  /// The exact value of a double. Throws Error for infinities and NaN.
  explicit Rational(double value);
  Rational(const Rational& other);
  Rational(Rational&& other) noexcept;
  Rational& operator=(const Rational& other);
  Rational& operator=(Rational&& other) noexcept;
  ~Rational();

  Rational& operator+=(const Rational& other);
  Rational& operator-=(const Rational& other);
  Rational& operator*=(const Rational& other);
  /// Throws Error for a zero divisor.
  Rational& operator/=(const Rational& other);

  explicit operator double() const;
  std::string to_string() const;

  /// Negative, zero or positive as *this is less than, equal to or greater than other.
  int compare(const Rational& other) const;

 private:
  alignas(16) std::array<std::byte, 64> storage_;
};

inline Rational operator+(Rational a, const Rational& b) { return a += b; }
inline Rational operator-(Rational a, const Rational& b) { return a -= b; }
inline Rational operator*(Rational a, const Rational& b) { return a *= b; }
inline Rational operator/(Rational a, const Rational& b) { return a /= b; }
inline bool operator==(const Rational& a, const Rational& b) { return a.compare(b) == 0; }
inline bool operator<(const Rational& a, const Rational& b) { return a.compare(b) < 0; }
inline bool operator>(const Rational& a, const Rational& b) { return a.compare(b) > 0; }
inline bool operator<=(const Rational& a, const Rational& b) { return a.compare(b) <= 0; }
inline bool operator>=(const Rational& a, const Rational& b) { return a.compare(b) >= 0; }
inline Rational abs(Rational a) { return a < Rational(0) ? Rational(0) - a : a; }
std::ostream& operator<<(std::ostream& out, const Rational& value);

}  // namespace specmoe
