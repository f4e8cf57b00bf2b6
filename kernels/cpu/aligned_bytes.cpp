#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>

#include "kernels/packed_matrix.h"

namespace specmoe::kernels {
namespace {

constexpr std::size_t kAlignment = 64;
constexpr std::size_t kHugePage = std::size_t{2} << 20;
constexpr std::size_t kChunk = std::size_t{32} << 20;
constexpr std::size_t kSmall = std::size_t{64} << 10;

std::size_t round_up(std::size_t n, std::size_t unit) { return (n + unit - 1) / unit * unit; }

/// Zeroed pages at a multiple of `alignment`, huge ones where the system has them: reading weights from 4 KB pages
/// costs 3-8 % of a decoding step in address translation.
std::byte* map_pages(std::size_t bytes, std::size_t alignment) {
  void* mapped = mmap(nullptr, bytes + alignment, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) throw std::bad_alloc();
  auto* base = static_cast<std::byte*>(mapped);
  const std::size_t before =
      round_up(reinterpret_cast<std::uintptr_t>(base), alignment) - reinterpret_cast<std::uintptr_t>(base);
  if (before > 0) munmap(base, before);
  munmap(base + before + bytes, alignment - before);
  madvise(base + before, bytes, MADV_HUGEPAGE);
  return base + before;
}

/// Many matrices (experts) are smaller than a huge page, so they share chunks. A chunk begins with the number of its
/// users, the arena itself being one while it still hands out memory; the last user unmaps it.
struct Chunk {
  std::atomic<std::int64_t> users;

  void leave() {
    if (users.fetch_sub(1, std::memory_order_acq_rel) == 1) munmap(this, kChunk);
  }
};

void leave_chunk(std::byte* p) {
  const std::uintptr_t address = reinterpret_cast<std::uintptr_t>(p);
  reinterpret_cast<Chunk*>(address - address % kChunk)->leave();
}

class Arena {
 public:
  AlignedBytes allocate(std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    if (chunk_ == nullptr || used_ + bytes > kChunk) {
      if (chunk_ != nullptr) chunk_->leave();
      chunk_ = nullptr;
      chunk_ = new (map_pages(kChunk, kChunk)) Chunk{1};
      used_ = kAlignment;
    }
    std::byte* memory = reinterpret_cast<std::byte*>(chunk_) + used_;
    used_ += bytes;
    chunk_->users.fetch_add(1, std::memory_order_relaxed);
    return {memory, leave_chunk};
  }

 private:
  std::mutex mutex_;
  Chunk* chunk_ = nullptr;
  std::size_t used_ = 0;
};

AlignedBytes allocate_pages(std::size_t bytes) {
  // The size must be known again when the memory is returned: it stands in the cache line before it.
  const std::size_t whole = round_up(bytes + kAlignment, kHugePage);
  std::byte* pages = map_pages(whole, kHugePage);
  std::memcpy(pages, &whole, sizeof(whole));
  return {pages + kAlignment, [](std::byte* p) {
            std::size_t mapped = 0;
            std::memcpy(&mapped, p - kAlignment, sizeof(mapped));
            munmap(p - kAlignment, mapped);
          }};
}

AlignedBytes allocate_small(std::size_t bytes) {
  auto* memory = static_cast<std::byte*>(std::aligned_alloc(kAlignment, bytes));
  if (memory == nullptr) throw std::bad_alloc();
  std::memset(memory, 0, bytes);
  return {memory, [](std::byte* p) { std::free(p); }};
}

}  // namespace

AlignedBytes allocate_aligned(std::size_t bytes) {
  static Arena arena;
  const std::size_t size = std::max(kAlignment, round_up(bytes, kAlignment));
  if (size < kSmall) return allocate_small(size);
  return size < kChunk / 4 ? arena.allocate(size) : allocate_pages(size);
}

}  // namespace specmoe::kernels
