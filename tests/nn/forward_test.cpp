// What a pass refuses, what it returns, and that it allocates nothing once warm.
#include <atomic>
#include <cstdlib>
#include <new>

#include "tests/nn/model_fixture.h"

namespace {
std::atomic<long> allocations{0};
}

// Counts every allocation of the program, the library's included.
[[gnu::noinline]] void* operator new(std::size_t bytes) {
  ++allocations;
  void* memory = std::malloc(bytes == 0 ? 1 : bytes);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
[[gnu::noinline]] void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  ++allocations;
  return std::malloc(bytes == 0 ? 1 : bytes);
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace specmoe::nn::testing {
namespace {

std::string error_of(const auto& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

class Forward : public ::testing::Test {
 protected:
  ForwardResult run(const RowBlock& block) {
    ForwardResult result;
    model_->forward({&block, 1}, result);
    return result;
  }
  void expect_refused(std::vector<TokenId> tokens, std::vector<std::int32_t> parents, const std::string& part) {
    const std::string text = error_of([&] { run({cache_.get(), tokens, parents, LogitsWanted::kAll}); });
    EXPECT_NE(text.find(part), std::string::npos) << text;
    EXPECT_EQ(cache_->staged(), 0);
  }

  Fixture fixture_ = load_fixture("mixtral_a");
  std::shared_ptr<LanguageModel> model_ = load(fixture_.folder);
  std::unique_ptr<KVCache> cache_ = model_->new_cache(8);
};

TEST_F(Forward, RefusesWhatDoesNotFit) {
  expect_refused({1, 2, 199}, {-1, 0, 1}, "token 199 is outside the vocabulary of 199");
  expect_refused({1, -1}, {-1, 0}, "token -1 is outside");
  expect_refused({1, 2}, {-1, 1}, "row 1 hangs on row 1");
  expect_refused({1, 2}, {-2, 0}, "row 0 hangs on row -2");
  expect_refused({1, 2}, {-1}, "one parent per token");
  expect_refused({}, {}, "one parent per token");
  expect_refused({1, 1, 1, 1, 1, 1, 1, 1, 1}, {-1, 0, 1, 2, 3, 4, 5, 6, 7}, "room for 8");
}

TEST_F(Forward, RefusesForeignAndSharedCaches) {
  const auto other = load(fixture_.folder);
  const auto foreign = other->new_cache(8);
  const std::vector<TokenId> tokens = {1};
  const std::vector<std::int32_t> parents = {-1};
  EXPECT_NE(error_of([&] { run({foreign.get(), tokens, parents, LogitsWanted::kAll}); }).find("cache of this model"),
            std::string::npos);
  const RowBlock block{cache_.get(), tokens, parents, LogitsWanted::kAll};
  const std::vector<RowBlock> twice = {block, block};
  ForwardResult result;
  EXPECT_NE(error_of([&] { model_->forward(twice, result); }).find("same cache"), std::string::npos);
  EXPECT_EQ(cache_->staged(), 0);
}

TEST_F(Forward, RefusesTextBeyondTheContext) {
  const auto cache = model_->new_cache(400);
  const std::vector<TokenId> text(256, 3);
  append(*model_, *cache, text);
  const std::vector<TokenId> one = {3};
  EXPECT_NE(error_of([&] { append(*model_, *cache, one); }).find("longer than the 256"), std::string::npos);
}

TEST_F(Forward, KeepsOnlyPaths) {
  const std::vector<TokenId> tokens = {1, 2, 3, 4};
  const std::vector<std::int32_t> parents = {-1, 0, 0, 2};
  run_rows(*model_, *cache_, tokens, parents);
  const auto keep = [&](std::vector<std::int32_t> path) { return error_of([&] { cache_->keep(path); }); };
  EXPECT_NE(keep({0, 1, 2}), "");
  EXPECT_NE(keep({1}), "");
  EXPECT_NE(keep({0, 4}), "");
  EXPECT_NE(keep({-1}), "");
  EXPECT_EQ(cache_->staged(), 4);
  EXPECT_EQ(keep({0, 2, 3}), "");
  EXPECT_EQ(cache_->committed(), 3);
  EXPECT_EQ(cache_->staged(), 0);
  EXPECT_NE(error_of([&] { cache_->truncate(4); }), "");
  EXPECT_NE(error_of([&] { cache_->truncate(-1); }), "");
}

TEST_F(Forward, CacheOfAbsurdSizeIsRefusedBeforeAllocating) {
  EXPECT_NE(error_of([&] { model_->new_cache(0); }).find("at least 1"), std::string::npos);
  EXPECT_NE(error_of([&] { model_->new_cache(2147483647); }).find("GiB"), std::string::npos);
}

TEST_F(Forward, LogitsAreOfTheRowsWanted) {
  const std::vector<TokenId> tokens = {1, 2, 3};
  const std::vector<std::int32_t> parents = {-1, 0, 1};
  const auto second = model_->new_cache(8);
  const auto third = model_->new_cache(8);
  const std::vector<RowBlock> blocks = {{cache_.get(), tokens, parents, LogitsWanted::kLast},
                                        {second.get(), tokens, parents, LogitsWanted::kNone},
                                        {third.get(), tokens, parents, LogitsWanted::kAll}};
  ForwardResult result;
  model_->forward(blocks, result);
  EXPECT_EQ(result.row_begin, (std::vector<std::int32_t>{0, 1, 1, 4}));
  EXPECT_EQ(result.argmax.size(), 4U);
  EXPECT_TRUE(same_bits(result.logits_row(0), result.logits_row(3)));
  EXPECT_EQ(result.moe_rows, 9);
  EXPECT_EQ(result.experts.size(), 2U * 9 * 2);
  for (int row = 0; row < 4; ++row) {
    const auto logits = result.logits_row(row);
    EXPECT_EQ(result.argmax[static_cast<std::size_t>(row)],
              std::max_element(logits.begin(), logits.end()) - logits.begin());
  }
}

// Of every family, some of which scale, bound or shift their logits.
TEST(Argmax, IsTheSameWithoutLogits) {
  for (const std::string& name : fixture_names()) {
    const Fixture fixture = load_fixture(name);
    for (const int threads : {1, 2}) {
      const auto model = load(fixture.folder, kernels::DType::kBFloat16, threads);
      const auto cache = model->new_cache(32);
      std::vector<std::int32_t> parents(16);
      std::iota(parents.begin(), parents.end(), -1);
      const RowBlock block{cache.get(), std::span(fixture.ids).first(16), parents, LogitsWanted::kAll};
      ForwardResult with, without;
      without.want_logits = false;
      model->forward({&block, 1}, with);
      cache->truncate(0);
      model->forward({&block, 1}, without);
      EXPECT_EQ(without.argmax, with.argmax) << name << ", " << threads << " threads";
      EXPECT_EQ(with.argmax.size(), 16U);
      EXPECT_TRUE(without.logits.empty());
    }
  }
}

TEST_F(Forward, AllocatesNothingOnceWarm) {
  const auto model = load(fixture_.folder, kernels::DType::kBFloat16, 2);
  const auto cache = model->new_cache(64);
  const std::vector<TokenId> tokens = {5, 6, 7, 8, 9, 10};
  const std::vector<std::int32_t> parents = {-1, 0, 0, 1, 3, 3};
  const std::vector<std::int32_t> path = {0, 1, 3};
  ForwardResult result;
  const auto step = [&] {
    if (cache->committed() > 40) cache->truncate(10);
    const RowBlock block{cache.get(), tokens, parents, LogitsWanted::kAll};
    model->forward({&block, 1}, result);
    cache->keep(path);
  };
  for (int i = 0; i < 20; ++i) step();
  const long before = allocations;
  for (int i = 0; i < 1000; ++i) step();
  EXPECT_EQ(allocations - before, 0);
}

}  // namespace
}  // namespace specmoe::nn::testing
