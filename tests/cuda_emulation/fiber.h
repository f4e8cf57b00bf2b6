#pragma once

#include <cstddef>

namespace cuda_emulation {

/// A stack of its own on the calling operating-system thread, known to the sanitizer in use. ThreadSanitizer sees every
/// fiber as a thread that nothing orders with the others, except where release() meets acquire().
class Fiber {
 public:
  /// The fiber that is running already.
  Fiber();
  /// A fiber that runs entry(), which never returns, when it is first switched to.
  explicit Fiber(void (*entry)());
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  /// Leaves the running fiber `from` and goes on with this one.
  void switch_from(Fiber& from);
  /// First thing to be called in entry().
  static void started();

 private:
  void* stack_pointer_ = nullptr;
  void* stack_ = nullptr;
  void* sanitizer_ = nullptr;  // ThreadSanitizer's fiber
  void* fake_stack_ = nullptr;
};

/// Memory accesses that ThreadSanitizer takes to be made by someone else: the engine that does asynchronous copies.
class Observer {
 public:
  Observer();
  ~Observer();
  Observer(const Observer&) = delete;
  Observer& operator=(const Observer&) = delete;
  /// Orders what the running fiber has done before what the observer does from now on.
  void learn();
  /// The opposite: what the observer has done comes before what the running fiber does from now on.
  void teach();
  void copy(void* to, const void* from, std::size_t read_bytes, std::size_t written_bytes);

 private:
  void* sanitizer_ = nullptr;
  char learned_ = 0;
  char taught_ = 0;
};

/// Whoever acquires a cell is ordered after those that released it before.
void release(void* cell);
void acquire(void* cell);

/// Races reported so far.
unsigned long race_count();

}  // namespace cuda_emulation
