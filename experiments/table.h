#pragma once

#include <cstdint>
#include <iosfwd>
#include <string>
#include <vector>

#include "core/metrics.h"

namespace specmoe::cli {

/// Columns padded to their widest cell: the first `left` columns are left-aligned, the others right-aligned.
class Table {
 public:
  explicit Table(int left = 1) : left_(left) {}
  void row(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  void print(std::ostream& out) const;

 private:
  int left_;
  std::vector<std::vector<std::string>> rows_;
};

/// "3.14"; "-" for NaN.
std::string fixed(double value, int digits);
/// "1.58 [1.50, 1.75]"
std::string interval_text(const Interval& interval);
/// "17.8 M"
std::string with_unit(double count);
/// "35.6 MB", powers of 1000.
std::string bytes_text(std::int64_t bytes);

}  // namespace specmoe::cli
