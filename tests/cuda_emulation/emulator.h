#pragma once

#include <array>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "tests/cuda_emulation/cuda_emulation.h"
#include "tests/cuda_emulation/fiber.h"

// What the emulator knows of a running grid. Code that fibers run here is compiled without sanitizers' instrumentation,
// and must neither allocate nor call libc's memory functions: ThreadSanitizer would take that for the kernel's own,
// unordered accesses.

namespace cuda_emulation {

inline constexpr std::size_t kMostSharedBytes = std::size_t{163} << 10;  // of a block on sm_80
inline constexpr unsigned kMostThreads = 1024;
inline constexpr unsigned kWarp = 32;
inline constexpr std::size_t kMostGatherings = 8;  // masks in use at once in a warp
inline constexpr std::size_t kMostCopies = 1024;   // asynchronous copies of one thread under way
inline constexpr std::uint64_t kMostYields = 1'000'000;
// As a float, half of a double or a bfloat16 it is NaN; as an index it is far outside everything.
inline constexpr std::uint32_t kUninitialised = 0x7fff7fffu;
inline constexpr std::uint32_t kCanary = 0x5ca1ab1eu;
inline constexpr std::size_t kCanaryWords = 16;

inline void quiet_copy(void* to, const void* from, std::size_t bytes) {
  asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
}
inline void quiet_fill(void* to, std::uint32_t word, std::size_t words) {
  asm volatile("rep stosl" : "+D"(to), "+c"(words) : "a"(word) : "memory");
}

/// Threads that meet, at a barrier or in a warp collective. Two cells in turn: a thread that is quick to come back must
/// not order those that have yet to leave.
struct Meeting {
  unsigned arrived = 0;
  unsigned round = 0;
  Where where;
  char cells[2] = {};
};

/// One set of lanes of a warp that uses collectives.
struct Gathering {
  unsigned mask = 0;
  Meeting meeting;
  alignas(16) std::byte payload[2][kWarp][kMaxPayload];
};

struct Warp {
  std::array<Gathering, kMostGatherings> gatherings;
};

struct Copy {
  void* to;
  const void* from;
  unsigned bytes;
  bool wanted;
  unsigned group;
};

struct Block;

struct Worker : Thread {
  explicit Worker(void (*entry)()) : fiber(entry) {}
  Fiber fiber;
  Block* block = nullptr;
  unsigned rank = 0;
  const Meeting* waits_for = nullptr;
  // Asynchronous copies under way, oldest first, and the group that is being filled.
  std::unique_ptr<Observer> engine;
  std::array<Copy, kMostCopies> copies;
  std::size_t first_copy = 0, copy_count = 0;
  unsigned groups = 0;
};

/// A resident block: its threads are reused by the blocks that come after it.
struct Block {
  std::vector<std::unique_ptr<Worker>> workers;
  std::vector<std::unique_ptr<Warp>> warps;
  std::unique_ptr<std::uint32_t[]> arena;
  unsigned size = 0;
  unsigned ended = 0;
  Meeting barrier;
  // Orders its threads after those of the block before it, but not after one another: two cells in turn.
  char handed_on[2] = {};
  unsigned generation = 0;
};

struct Grid {
  dim3 size, block;
  std::uint64_t blocks = 0, next = 0, finished = 0;
  std::size_t shared_words = 0;
  const std::function<void()>* body = nullptr;
  std::string fault;
  std::uint64_t yields = 0;
};

struct Emulator {
  std::vector<std::unique_ptr<Block>> blocks;
  std::vector<Worker*> ready;
  std::size_t ready_count = 0;
  Fiber main;
  Grid grid;
  char start = 0, end = 0;
  std::uint64_t seed = 1;
  int resident = 2;
  std::uint64_t launches = 0;
  std::uint64_t random = 1;

  std::uint64_t draw() {
    random ^= random << 13;
    random ^= random >> 7;
    return random ^= random << 17;
  }
};

/// There is one: the emulation runs on one operating-system thread.
Emulator& emulator();
inline Worker& self() { return *static_cast<Worker*>(current); }
void push_ready(Worker& worker);
[[noreturn]] void abandon_grid();

/// Prints a place.
struct At {
  const Where& where;
  friend std::ostream& operator<<(std::ostream& out, const At& at) {
    return out << at.where.file_name() << ":" << at.where.line();
  }
};

/// Ends the grid with a fault. Called from fibers, which are never resumed: nothing on their stacks may own memory.
template <class... Parts>
[[noreturn]] void fault(const Parts&... parts) {
  {
    std::ostringstream text;
    (text << ... << parts);
    emulator().grid.fault = text.str();
  }
  abandon_grid();
}

/// Runs another ready thread; the caller goes on when it is made ready and drawn. With none ready, all wait for threads
/// that will not come.
void run_next();
/// Does the asynchronous copies of this thread's groups before `end`.
void finish_copies(unsigned end);

}  // namespace cuda_emulation
