#include "tests/cuda_emulation/fiber.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <new>

#include "tests/cuda_emulation/schedule.h"

// The sanitizers' interfaces are weak: which one is linked is the build's choice, and this file is the same for all.
extern "C" {
#define SPECMOE_WEAK __attribute__((weak))
SPECMOE_WEAK void* __tsan_get_current_fiber();
SPECMOE_WEAK void* __tsan_create_fiber(unsigned flags);
SPECMOE_WEAK void __tsan_destroy_fiber(void* fiber);
SPECMOE_WEAK void __tsan_switch_to_fiber(void* fiber, unsigned flags);
SPECMOE_WEAK void __tsan_acquire(void* cell);
SPECMOE_WEAK void __tsan_release(void* cell);
SPECMOE_WEAK void __tsan_read_range(void* from, unsigned long bytes);
SPECMOE_WEAK void __tsan_write_range(void* to, unsigned long bytes);
SPECMOE_WEAK void __sanitizer_set_report_fd(void* descriptor);
SPECMOE_WEAK void __sanitizer_start_switch_fiber(void** fake_stack_save, const void* bottom, std::size_t size);
SPECMOE_WEAK void __sanitizer_finish_switch_fiber(void* fake_stack_save, const void** bottom_old,
                                                  std::size_t* size_old);

SPECMOE_WEAK void __asan_unpoison_memory_region(const volatile void* from, std::size_t bytes);

void specmoe_switch_stack(void** save, void* load);

const char* __tsan_default_options() {
  // Every launch is judged by itself, so equal races are reported again; short histories make fibers cheap. A race does
  // not change the exit code, since planted ones are no failures; a crash must, so signals are left to the system.
  return "history_size=0:suppress_equal_stacks=0:suppress_equal_addresses=0:exitcode=0:report_destroy_locked=0:"
         "handle_segv=0:handle_sigbus=0:handle_sigfpe=0:handle_abort=0";
}
}

namespace {
unsigned long races = 0;
}
/// ThreadSanitizer calls it for every race.
extern "C" void __tsan_on_report(void*) { ++races; }

asm(R"(
.text
.globl specmoe_switch_stack
.type specmoe_switch_stack, @function
specmoe_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size specmoe_switch_stack, .-specmoe_switch_stack
)");

namespace cuda_emulation {
namespace {

constexpr std::size_t kStackBytes = std::size_t{256} << 10;
// No synchronisation: a change of fiber must not order anything, or every race would be hidden.
constexpr unsigned kUnordered = 1;

// The thread's own stack, which AddressSanitizer tells the first fiber.
const void* main_stack = nullptr;
std::size_t main_stack_bytes = 0;

void* create_observer() { return __tsan_create_fiber != nullptr ? __tsan_create_fiber(0) : nullptr; }

}  // namespace

Fiber::Fiber() : sanitizer_(__tsan_get_current_fiber != nullptr ? __tsan_get_current_fiber() : nullptr) {}

Fiber::Fiber(void (*entry)()) {
  stack_ = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (stack_ == MAP_FAILED) throw std::bad_alloc();
  mprotect(stack_, 4096, PROT_NONE);
  // As specmoe_switch_stack leaves it: six registers, then where to return to; entry() starts as if it had been called.
  auto* top = reinterpret_cast<std::uintptr_t*>(static_cast<std::byte*>(stack_) + kStackBytes);
  top -= 2;
  *top = reinterpret_cast<std::uintptr_t>(entry);
  stack_pointer_ = top - 6;
  sanitizer_ = create_observer();
}

Fiber::~Fiber() {
  if (stack_ == nullptr) return;
  if (sanitizer_ != nullptr) __tsan_destroy_fiber(sanitizer_);
  // Frames of a thread that was abandoned in the middle of a kernel must not haunt whoever gets this memory next.
  if (__asan_unpoison_memory_region != nullptr) __asan_unpoison_memory_region(stack_, kStackBytes);
  munmap(stack_, kStackBytes);
}

void Fiber::switch_from(Fiber& from) {
  if (__sanitizer_start_switch_fiber != nullptr) {
    __sanitizer_start_switch_fiber(&from.fake_stack_, stack_ != nullptr ? stack_ : main_stack,
                                   stack_ != nullptr ? kStackBytes : main_stack_bytes);
  }
  if (sanitizer_ != nullptr) __tsan_switch_to_fiber(sanitizer_, kUnordered);
  specmoe_switch_stack(&from.stack_pointer_, stack_pointer_);
  if (__sanitizer_finish_switch_fiber != nullptr) __sanitizer_finish_switch_fiber(from.fake_stack_, nullptr, nullptr);
}

void Fiber::started() {
  if (__sanitizer_finish_switch_fiber == nullptr) return;
  const void* left_stack = nullptr;
  std::size_t left_bytes = 0;
  __sanitizer_finish_switch_fiber(nullptr, &left_stack, &left_bytes);
  if (main_stack != nullptr) return;
  main_stack = left_stack;
  main_stack_bytes = left_bytes;
}

Observer::Observer() : sanitizer_(create_observer()) {}

Observer::~Observer() {
  if (sanitizer_ != nullptr) __tsan_destroy_fiber(sanitizer_);
}

void Observer::learn() {
  if (sanitizer_ == nullptr) return;
  void* self = __tsan_get_current_fiber();
  __tsan_release(&learned_);
  __tsan_switch_to_fiber(sanitizer_, kUnordered);
  __tsan_acquire(&learned_);
  __tsan_switch_to_fiber(self, kUnordered);
}

void Observer::teach() {
  if (sanitizer_ == nullptr) return;
  void* self = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(sanitizer_, kUnordered);
  __tsan_release(&taught_);
  __tsan_switch_to_fiber(self, kUnordered);
  __tsan_acquire(&taught_);
}

void Observer::copy(void* to, const void* from, std::size_t read_bytes, std::size_t written_bytes) {
  void* self = nullptr;
  if (sanitizer_ != nullptr) {
    self = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(sanitizer_, kUnordered);
    if (read_bytes > 0) __tsan_read_range(const_cast<void*>(from), read_bytes);
    __tsan_write_range(to, written_bytes);
  }
  auto* target = static_cast<std::byte*>(to);
  std::memcpy(target, from, read_bytes);
  std::memset(target + read_bytes, 0, written_bytes - read_bytes);
  if (self != nullptr) __tsan_switch_to_fiber(self, kUnordered);
}

void release(void* cell) {
  if (__tsan_release != nullptr) __tsan_release(cell);
}
void acquire(void* cell) {
  if (__tsan_acquire != nullptr) __tsan_acquire(cell);
}

unsigned long race_count() { return races; }

QuietRaces::QuietRaces() {
  if (!watches_races()) return;
  static const int nowhere = open("/dev/null", O_WRONLY);
  __sanitizer_set_report_fd(reinterpret_cast<void*>(static_cast<std::intptr_t>(nowhere)));
}
QuietRaces::~QuietRaces() {
  if (watches_races()) __sanitizer_set_report_fd(reinterpret_cast<void*>(std::intptr_t{STDERR_FILENO}));
}

bool watches_races() { return __tsan_create_fiber != nullptr; }

}  // namespace cuda_emulation
