#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <vector>

#include "core/types.h"
#include "kernels/check.h"
#include "kernels/host_device.h"

namespace specmoe {

/// Decisions are computed in this type: double for float32 and double rows, the row's own type for exact rationals.
template <class Real>
struct WideOf {
  using Type = Real;
};
template <>
struct WideOf<float> {
  using Type = double;
};
template <class Real>
using Wide = typename WideOf<Real>::Type;

struct OneThread;

/// One probability row over the vocabulary, borrowed: dense, or all mass on one token (temperature 0, a token that was
/// proposed without a distribution).
///
/// Scalar  what decisions are computed in
/// Team    who goes through a row's tokens: see OneThread
template <class Real>
class ProbRow {
 public:
  using Scalar = Wide<Real>;
  using Team = OneThread;

  ProbRow() = default;
  SPECMOE_HD explicit ProbRow(std::span<const Real> dense) : dense_(dense), vocab_(static_cast<int>(dense.size())) {}
  SPECMOE_HD static ProbRow point(TokenId token, int vocab) {
    ProbRow row;
    row.point_ = token;
    row.vocab_ = vocab;
    return row;
  }

  SPECMOE_HD bool is_point() const { return point_ >= 0; }
  SPECMOE_HD TokenId point_token() const { return point_; }
  SPECMOE_HD int vocab() const { return vocab_; }
  SPECMOE_HD std::span<const Real> dense() const { return dense_; }

  SPECMOE_HD Wide<Real> operator[](TokenId x) const {
    if (is_point()) return Wide<Real>(x == point_ ? 1 : 0);
    return Wide<Real>(dense_[x]);
  }

 private:
  std::span<const Real> dense_;
  TokenId point_ = -1;
  int vocab_ = 0;
};

/// Probability rows by index. Row n is made when it is first asked for: a walk visits few of the rows of a tree.
template <class Real>
class ProbRows {
 public:
  virtual ~ProbRows() = default;
  virtual int vocab() const = 0;
  virtual ProbRow<Real> row(int n) = 0;
};

/// Rows that exist already: the draft's own, and those of tests and proofs. Rows stay where they are when others are
/// added, so a ProbRow from row() lives until clear().
template <class Real>
class StoredRows final : public ProbRows<Real> {
 public:
  explicit StoredRows(int vocab = 0) : vocab_(vocab) {}

  void reset(int vocab) {
    vocab_ = vocab;
    used_ = 0;
  }
  int size() const { return used_; }
  int vocab() const override { return vocab_; }

  /// Appends a dense row, uninitialised, to be filled by the caller; returns its index.
  int add_dense() {
    Entry& entry = next();
    entry.point = -1;
    entry.dense.resize(vocab_);
    return used_ - 1;
  }
  int add_dense(std::span<const Real> values) {
    SPECMOE_CHECK(static_cast<int>(values.size()) == vocab_, "probability row: expected [V=", vocab_, "], got [",
                  values.size(), "]");
    const int index = add_dense();
    std::copy(values.begin(), values.end(), entries_[index].dense.begin());
    return index;
  }
  int add_point(TokenId token) {
    next().point = token;
    return used_ - 1;
  }
  std::span<Real> dense(int n) { return entries_[n].dense; }

  ProbRow<Real> row(int n) override {
    const Entry& entry = entries_[n];
    if (entry.point >= 0) return ProbRow<Real>::point(entry.point, vocab_);
    return ProbRow<Real>(std::span<const Real>(entry.dense));
  }

 private:
  struct Entry {
    TokenId point = -1;
    std::vector<Real> dense;
  };
  Entry& next() {
    if (used_ == static_cast<int>(entries_.size())) entries_.emplace_back();
    return entries_[used_++];
  }

  int vocab_ = 0;
  int used_ = 0;
  std::deque<Entry> entries_;
};

}  // namespace specmoe
