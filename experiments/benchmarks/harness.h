#pragma once

// What the benchmarks share: samples of which those disturbed by other programs are dropped, and what the machine can
// do in the same seconds, so that every figure stands beside its limit.

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "core/metrics.h"
#include "kernels/thread_pool.h"

namespace specmoe::bench {

inline double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Runs timed work and tells whether it was alone: NaN when a thread of this process had to leave its core to another
/// program, or the hypervisor took the core away, meanwhile.
class QuietTimer {
 public:
  /// work() returns its seconds.
  template <class Work>
  static double seconds(const Work& work) {
    const long switches = forced_switches();
    const long stolen = stolen_ticks();
    const double elapsed = work();
    const bool quiet = forced_switches() == switches && stolen_ticks() == stolen;
    return quiet ? elapsed : std::numeric_limits<double>::quiet_NaN();
  }

 private:
  static long forced_switches() {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_nivcsw;
  }
  static long stolen_ticks() {
    std::ifstream stat("/proc/stat");
    std::string name;
    long value = 0, stolen = 0;
    stat >> name;
    for (int i = 0; i < 8 && stat >> value; ++i) stolen = value;
    return stolen;
  }
};

/// Several pieces of work measured in turn, forwards and backwards, so that a drift of the machine hits all alike.
class Interleaved {
 public:
  /// per_sample  what one run of `work` is divided by: passes, tokens, bytes
  template <class Work>
  void add(std::string name, double per_sample, Work work) {
    add_timed(std::move(name), [per_sample, work = std::move(work)] {
      const double start = now_s();
      work();
      return (now_s() - start) / per_sample;
    });
  }
  /// work() times itself: it returns seconds per unit.
  void add_timed(std::string name, std::function<double()> work) {
    parts_.push_back({std::move(name), std::move(work), {}});
  }

  /// One run of each beforehand is not measured.
  void run(int rounds) {
    for (Part& part : parts_) part.work();
    for (int round = 0; round < rounds; ++round) {
      for (std::size_t i = 0; i < parts_.size(); ++i) {
        Part& part = parts_[round % 2 == 0 ? i : parts_.size() - 1 - i];
        part.seconds.push_back(QuietTimer::seconds(part.work));
      }
    }
  }

  /// Quiet samples only, seconds per unit.
  Interval seconds(std::size_t part) const { return summary(parts_[part].seconds); }
  /// Time of `part` over time of `base`, of rounds in which both were quiet.
  Interval ratio(std::size_t part, std::size_t base) const {
    return by_round(part, base, [](double x, double y) { return x / y; });
  }
  /// Time of `part` less time of `base`, likewise.
  Interval difference(std::size_t part, std::size_t base) const {
    return by_round(part, base, [](double x, double y) { return x - y; });
  }

  int kept(std::size_t part) const {
    const std::vector<double>& all = parts_[part].seconds;
    return static_cast<int>(std::count_if(all.begin(), all.end(), [](double x) { return !std::isnan(x); }));
  }
  int measured() const { return parts_.empty() ? 0 : static_cast<int>(parts_.front().seconds.size()); }
  const std::string& name(std::size_t part) const { return parts_[part].name; }

 private:
  struct Part {
    std::string name;
    std::function<double()> work;
    std::vector<double> seconds;  // per unit, by round; NaN: disturbed
  };

  template <class Combine>
  Interval by_round(std::size_t part, std::size_t base, const Combine& combine) const {
    std::vector<double> values;
    for (std::size_t i = 0; i < parts_[part].seconds.size(); ++i) {
      values.push_back(combine(parts_[part].seconds[i], parts_[base].seconds[i]));
    }
    return summary(values);
  }

  /// Of what is not NaN.
  static Interval summary(std::vector<double> values) {
    std::erase_if(values, [](double x) { return std::isnan(x); });
    constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
    return values.empty() ? Interval{kNone, kNone, kNone} : bootstrap_median(values);
  }

  std::vector<Part> parts_;
};

inline std::string interval_text(const Interval& value, double scale, int digits) {
  char text[96];
  std::snprintf(text, sizeof text, "%.*f [%.*f, %.*f]", digits, value.median * scale, digits, value.low * scale, digits,
                value.high * scale);
  return text;
}

}  // namespace specmoe::bench
