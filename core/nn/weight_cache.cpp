#include "core/nn/weight_cache.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "core/nn/sha256.h"
#include "kernels/check.h"

namespace specmoe::nn {

namespace fs = std::filesystem;

namespace {

// The file: Header, the key, the bytes of all memory one after another, one checksum for every piece of them.

constexpr char kMagic[8] = {'s', 'p', 'e', 'c', 'm', 'o', 'e', 'W'};

struct Header {
  char magic[8];
  std::uint64_t key_bytes;
  std::uint64_t data_bytes;
};

/// What is read and checked at a time: it should still be in the core's cache when the checksum is taken.
struct Piece {
  std::span<std::byte> memory;
  std::uint64_t at;  // in the data
};

std::vector<Piece> pieces_of(const WeightCache::Memory& memory) {
  constexpr std::size_t kMostBytes = std::size_t{1} << 20;
  std::vector<Piece> pieces;
  std::uint64_t at = 0;
  for (const std::span<std::byte> part : memory) {
    for (std::size_t begin = 0; begin < part.size(); begin += kMostBytes) {
      pieces.push_back({part.subspan(begin, std::min(kMostBytes, part.size() - begin)), at + begin});
    }
    at += part.size();
  }
  return pieces;
}

/// Any changed word changes it: eight independent chains of multiplications (FNV-1a on words), joined by one more.
std::uint64_t checksum(std::span<const std::byte> bytes) {
  constexpr std::uint64_t kPrime = 0x100000001b3;
  constexpr std::size_t kLanes = 8;
  std::uint64_t lanes[kLanes] = {1, 2, 3, 4, 5, 6, 7, 8};
  for (; !bytes.empty(); bytes = bytes.subspan(std::min(bytes.size(), sizeof(lanes)))) {
    std::uint64_t words[kLanes] = {};
    std::memcpy(words, bytes.data(), std::min(bytes.size(), sizeof(words)));
    for (std::size_t i = 0; i < kLanes; ++i) lanes[i] = (lanes[i] ^ words[i]) * kPrime;
  }
  std::uint64_t sum = 0;
  for (const std::uint64_t lane : lanes) sum = (sum ^ lane) * kPrime;
  return sum;
}

/// A file that closes itself.
class OpenFile {
 public:
  OpenFile(const std::string& path, int flags) : path_(path), file_(open(path.c_str(), flags | O_CLOEXEC, 0644)) {}
  ~OpenFile() {
    if (file_ >= 0) close(file_);
  }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;
  explicit operator bool() const { return file_ >= 0; }

  std::uint64_t size() const { return static_cast<std::uint64_t>(lseek(file_, 0, SEEK_END)); }

  void read(std::uint64_t at, std::span<std::byte> to) const {
    transfer(at, to,
             [this](std::span<std::byte> rest, off_t place) { return pread(file_, rest.data(), rest.size(), place); });
  }
  void write(std::uint64_t at, std::span<const std::byte> from) const {
    transfer(at, from, [this](std::span<const std::byte> rest, off_t place) {
      return pwrite(file_, rest.data(), rest.size(), place);
    });
  }

 private:
  template <class Span, class Call>
  void transfer(std::uint64_t at, Span bytes, const Call& call) const {
    while (!bytes.empty()) {
      errno = 0;
      const ssize_t done = call(bytes, static_cast<off_t>(at));
      if (done < 0 && errno == EINTR) continue;
      SPECMOE_CHECK(done > 0, "cannot read or write ", path_, ": ", std::strerror(errno));
      at += static_cast<std::uint64_t>(done);
      bytes = bytes.subspan(static_cast<std::size_t>(done));
    }
  }

  std::string path_;
  int file_;
};

/// A line about one file of a checkpoint.
std::string identity(const std::string& path) {
  constexpr std::size_t kBeginning = std::size_t{1} << 20;  // its header, in all but the largest
  std::string beginning(kBeginning, '\0');
  std::ifstream file(path, std::ios::binary);
  file.read(beginning.data(), static_cast<std::streamsize>(beginning.size()));
  beginning.resize(static_cast<std::size_t>(file.gcount()));
  return concat(fs::path(path).filename().string(), " ", fs::file_size(path), " ",
                fs::last_write_time(path).time_since_epoch().count(), " ", sha256_hex(beginning), "\n");
}

}  // namespace

WeightCache::WeightCache(const std::string& folder, const Checkpoint& checkpoint, kernels::DType dtype,
                         std::function<void(const std::string&)> notice)
    : notice_(std::move(notice)) {
  std::error_code error;
  fs::create_directories(folder, error);
  SPECMOE_CHECK(fs::is_directory(folder) && access(folder.c_str(), W_OK) == 0, "cache folder ", folder,
                " cannot be written", error ? ": " + error.message() : "");
  fs::path model = fs::weakly_canonical(checkpoint.path());
  if (!model.has_filename()) model = model.parent_path();  // "FOLDER/"
  const std::string where = sha256_hex(model.string());
  path_ = (fs::path(folder) /
           concat(model.filename().string(), "-", kernels::dtype_name(dtype), "-", where.substr(0, 12), ".packed"))
              .string();
  key_ = concat("packed weights, layout ", kernels::kPackedLayout, ", ", kernels::dtype_name(dtype), "\n");
  std::vector<std::string> files = checkpoint.files();
  const std::string config = (fs::path(checkpoint.path()) / "config.json").string();
  if (fs::exists(config)) files.push_back(config);
  for (const std::string& file : files) key_ += identity(file);
}

bool WeightCache::load(const Memory& memory, kernels::ThreadPool& pool, const WorkProgress& progress) const {
  const OpenFile file(path_, O_RDONLY);
  if (!file) return false;
  const std::vector<Piece> pieces = pieces_of(memory);
  const std::uint64_t data_bytes = pieces.empty() ? 0 : pieces.back().at + pieces.back().memory.size();
  try {
    Header header{};
    const std::uint64_t begin = sizeof(header) + key_.size();
    std::vector<std::uint64_t> sums(pieces.size());
    const bool whole = file.size() == begin + data_bytes + sums.size() * sizeof(std::uint64_t);
    SPECMOE_CHECK(file.size() >= begin, "is of another checkpoint, or truncated");
    file.read(0, std::as_writable_bytes(std::span(&header, 1)));
    SPECMOE_CHECK(std::memcmp(header.magic, kMagic, sizeof(kMagic)) == 0, "is not a file of packed weights");
    std::string key(key_.size(), '\0');
    file.read(sizeof(header), std::as_writable_bytes(std::span(key)));
    SPECMOE_CHECK(key == key_ && header.key_bytes == key_.size(), "was made of other weights");
    SPECMOE_CHECK(whole && header.data_bytes == data_bytes, "has ", file.size(), " bytes, not those of its weights");
    file.read(begin + data_bytes, std::as_writable_bytes(std::span(sums)));
    JobList jobs;
    for (std::size_t i = 0; i < pieces.size(); ++i) {
      jobs.add(static_cast<std::int64_t>(pieces[i].memory.size()), [&, i] {
        file.read(begin + pieces[i].at, pieces[i].memory);
        SPECMOE_CHECK(checksum(pieces[i].memory) == sums[i], "is damaged at byte ", begin + pieces[i].at);
      });
    }
    jobs.run(pool, progress);
    return true;
  } catch (const Error& error) {
    for (const Piece& piece : pieces) std::ranges::fill(piece.memory, std::byte{0});
    if (notice_) notice_(concat("cache ", path_, " ", error.what(), "; packing the weights again"));
    return false;
  }
}

void WeightCache::save(const Memory& memory, kernels::ThreadPool& pool) const {
  static std::atomic<unsigned> saves{0};
  const std::string temporary = concat(path_, ".tmp-", getpid(), "-", ++saves);
  const std::vector<Piece> pieces = pieces_of(memory);
  Header header{};
  std::memcpy(header.magic, kMagic, sizeof(kMagic));
  header.key_bytes = key_.size();
  header.data_bytes = pieces.empty() ? 0 : pieces.back().at + pieces.back().memory.size();
  try {
    const OpenFile file(temporary, O_WRONLY | O_CREAT | O_TRUNC);
    SPECMOE_CHECK(file, std::strerror(errno));
    const std::uint64_t begin = sizeof(header) + key_.size();
    file.write(0, std::as_bytes(std::span(&header, 1)));
    file.write(sizeof(header), std::as_bytes(std::span(key_)));
    std::vector<std::uint64_t> sums(pieces.size());
    JobList jobs;
    for (std::size_t i = 0; i < pieces.size(); ++i) {
      jobs.add(static_cast<std::int64_t>(pieces[i].memory.size()), [&, i] {
        file.write(begin + pieces[i].at, pieces[i].memory);
        sums[i] = checksum(pieces[i].memory);
      });
    }
    jobs.run(pool);
    file.write(begin + header.data_bytes, std::as_bytes(std::span(sums)));
    fs::rename(temporary, path_);
  } catch (const std::exception& error) {
    std::error_code ignored;
    fs::remove(temporary, ignored);
    fail("cannot keep the packed weights in ", path_, ": ", error.what(), "; make room, or load without a cache");
  }
}

}  // namespace specmoe::nn
