#include "experiments/progress.h"

#include <unistd.h>

#include <iostream>

#include "experiments/table.h"
#include "kernels/check.h"

namespace specmoe::cli {

namespace {

/// "[####................]  20 %"
std::string bar_text(double share) {
  constexpr int kWidth = 20;
  const int full = static_cast<int>(share * kWidth);
  std::string text = "[";
  text.append(full, '#').append(kWidth - full, '.').append("] ");
  const std::string percent = fixed(100 * share, 0);
  text.append(percent.size() < 3 ? 3 - percent.size() : 0, ' ');
  return text + percent + " %";
}

std::string duration_text(double seconds) {
  if (seconds < 100) return fixed(seconds, 0) + " s";
  if (seconds < 100 * 60) return fixed(seconds / 60, 0) + " min";
  return fixed(seconds / 3600, 1) + " h";
}

}  // namespace

Progress::Progress(bool quiet) : quiet_(quiet), terminal_(isatty(STDERR_FILENO) == 1) {}

void Progress::say(const std::string& text) {
  if (quiet_) return;
  clear();
  std::cerr << text << std::endl;
}

void Progress::step(int done, int total, const std::string& text) {
  if (quiet_) return;
  constexpr std::chrono::seconds kBetweenLines{5};
  const Clock::time_point now = Clock::now();
  if (!terminal_ && now - last_ < kBetweenLines) return;
  if (done == 0) begin_ = now;
  last_ = now;
  std::string line = concat(bar_text(total > 0 ? static_cast<double>(done) / total : 1.0), " ", text);
  if (done > 0) {
    const double left = std::chrono::duration<double>(now - begin_).count() / done * (total - done);
    line += ", " + duration_text(left) + " left";
  }
  if (terminal_) {
    std::cerr << "\r\033[K" << line << std::flush;
    line_open_ = true;
  } else {
    std::cerr << line << std::endl;
  }
}

void Progress::bar(double share, const std::string& text) {
  if (quiet_ || !terminal_) return;
  const Clock::time_point now = Clock::now();
  constexpr std::chrono::milliseconds kBetweenFrames{50};
  if (line_open_ && now - last_ < kBetweenFrames) return;
  last_ = now;
  std::cerr << "\r\033[K" << bar_text(share) << " " << text << std::flush;
  line_open_ = true;
}

void Progress::clear() {
  if (line_open_) std::cerr << "\r\033[K" << std::flush;
  line_open_ = false;
}

}  // namespace specmoe::cli
