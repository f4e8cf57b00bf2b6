// Kept weights are the packed ones, and never those of something else.
#include "core/nn/weight_cache.h"

#include "tests/nn/model_fixture.h"

namespace specmoe::nn::testing {
namespace {

namespace fs = std::filesystem;
using kernels::DType;

class Cache : public ::testing::TestWithParam<std::string> {
 protected:
  Cache() { fs::remove_all(cache_.path()); }

  std::vector<float> logits(DType dtype, bool with_cache = true) {
    notices_.clear();
    LoadOptions options;
    options.dtype = dtype;
    options.threads = 2;
    if (with_cache) options.cache = cache_.path();
    options.notice = [this](const std::string& line) { notices_.push_back(line); };
    const auto model = load_model(source_.path(), options);
    const auto cache = model->new_cache(static_cast<int>(fixture_.ids.size()));
    return append(*model, *cache, fixture_.ids).logits;
  }

  fs::path only_file() const {
    std::vector<fs::path> files;
    for (const auto& entry : fs::directory_iterator(cache_.path())) files.push_back(entry.path());
    EXPECT_EQ(files.size(), 1U);
    return files.at(0);
  }

  Fixture fixture_ = load_fixture(GetParam());
  FolderCopy source_{fixture_.folder};
  FolderCopy cache_{fixture_.folder};  // a name
  std::vector<std::string> notices_;
};

TEST_P(Cache, GivesTheSameBits) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kInt8}) {
    const std::vector<float> packed = logits(dtype, false);
    EXPECT_TRUE(same_bits(logits(dtype), packed));
    EXPECT_TRUE(same_bits(logits(dtype), packed)) << "from the file";
    EXPECT_TRUE(notices_.empty());
  }
}

TEST_P(Cache, DamageIsFoundAndMended) {
  const std::vector<float> packed = logits(DType::kInt8);
  const std::string whole = read_file(only_file());
  const auto expect_mended = [&](const std::string& bytes, const std::string& part) {
    write_file(only_file(), bytes);
    EXPECT_TRUE(same_bits(logits(DType::kInt8), packed)) << part;
    ASSERT_EQ(notices_.size(), 1U) << part;
    EXPECT_NE(notices_[0].find(part), std::string::npos) << notices_[0];
    EXPECT_NE(notices_[0].find("packing the weights again"), std::string::npos) << notices_[0];
    EXPECT_TRUE(whole == read_file(only_file())) << part;
    logits(DType::kInt8);
    EXPECT_TRUE(notices_.empty()) << part;
  };
  for (const std::size_t place : {whole.size() / 3, whole.size() / 2, whole.size() - 1}) {
    std::string changed = whole;
    changed[place] = static_cast<char>(changed[place] ^ 4);
    expect_mended(changed, "is damaged at byte ");
  }
  expect_mended(whole.substr(0, whole.size() - 8), "bytes, not those of its weights");
  expect_mended(whole.substr(0, 40), "truncated");
  expect_mended("", "truncated");
  std::string foreign = whole;
  foreign[0] = 'x';
  expect_mended(foreign, "is not a file of packed weights");
  foreign = whole;
  foreign[whole.find("int8")] = 'I';
  expect_mended(foreign, "was made of other weights");
}

TEST_P(Cache, ANewCheckpointIsNotTakenForTheOldOne) {
  logits(DType::kBFloat16);
  const fs::path weights = source_ / "config.json";
  fs::last_write_time(weights, fs::last_write_time(weights) + std::chrono::seconds(1));
  logits(DType::kBFloat16);
  ASSERT_EQ(notices_.size(), 1U);
  EXPECT_NE(notices_[0].find("was made of other weights"), std::string::npos) << notices_[0];
}

INSTANTIATE_TEST_SUITE_P(Models, Cache,
                         ::testing::Values("mixtral_b", "gemma3_text_a", "gpt_oss_mxfp4", "deepseek_v3_fp8"),
                         [](const auto& info) { return info.param; });

TEST(CacheFolder, MustBeWritable) {
  LoadOptions options;
  options.cache = "/proc/no_such_folder";
  EXPECT_THROW(load_model(load_fixture("llama_default").folder, options), Error);
}

TEST(CacheFolder, AFullDiskLeavesNothingBehind) {
  FolderCopy folder(load_fixture("llama_default").folder);
  const Checkpoint checkpoint(folder.path());
  const fs::path cache = folder / "cache";
  WeightCache kept(cache.string(), checkpoint, DType::kFloat32, {});
  kernels::ThreadPool pool(1);
  // Memory that cannot be read stands for a disk that cannot be written: EFAULT in place of ENOSPC.
  const WeightCache::Memory memory = {{reinterpret_cast<std::byte*>(64), 4096}};
  EXPECT_THROW(kept.save(memory, pool), Error);
  EXPECT_TRUE(fs::is_empty(cache));
}

}  // namespace
}  // namespace specmoe::nn::testing
