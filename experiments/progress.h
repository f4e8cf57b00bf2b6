#pragma once

#include <chrono>
#include <string>

namespace specmoe::cli {

/// Progress on stderr: one line that rewrites itself on a terminal, a line every few seconds elsewhere; nothing when
/// quiet.
class Progress {
 public:
  explicit Progress(bool quiet);
  ~Progress() { clear(); }

  /// A line that stays.
  void say(const std::string& text);
  /// `done` of `total` pieces of work; text says what is running.
  void step(int done, int total, const std::string& text);
  /// The same of one piece of work, `share` of which is done; on a terminal only.
  void bar(double share, const std::string& text);
  /// Takes the rewritten line away, before other output.
  void clear();

 private:
  using Clock = std::chrono::steady_clock;

  bool quiet_;
  bool terminal_;
  bool line_open_ = false;
  Clock::time_point begin_ = Clock::now();
  Clock::time_point last_ = begin_;
};

}  // namespace specmoe::cli
