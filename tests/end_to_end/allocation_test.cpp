#include <gtest/gtest.h>
#include <malloc.h>

#include <atomic>
#include <cstdlib>
#include <new>
#include <string>
#include <vector>

#include "core/engine.h"
#include "core/nn/model_loader.h"
#include "core/tree_policy.h"
#include "tests/support/medusa_folder.h"
#include "tests/support/renamed_model.h"

namespace {
std::atomic<long> allocations{0};
}

// Counts every allocation of the program. The sanitizers bring their own operator new.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
[[gnu::noinline]] void* operator new(std::size_t bytes) {
  ++allocations;
  if (void* memory = std::malloc(bytes)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
#endif

namespace specmoe {
namespace {

const std::string kModels = std::string(SPECMOE_SOURCE_ROOT) + "/experiments/models";

struct Case {
  std::string name;
  EngineSpec spec;
  int tokens = 1000;
  SamplingParams sampling{};
  std::shared_ptr<LogitsProcessor> logits_processor{};
};

/// Drafts stay right as often as without it: a step that first accepts more than any before needs more room.
struct Unchanging final : LogitsProcessor {
  void process(std::span<const TokenId>, std::span<const TokenId>, std::span<float>) override {}
};

/// Every kind of drafter, and every topology.
std::vector<Case> cases() {
  static const test::MedusaFolder medusa(256);
  static const test::RenamedModel thinned(kModels + "/drafter", test::thinned_ids(kModels + "/drafter"));
  const std::string independent = "independent(path=" + kModels + "/drafter)";
  std::vector<Case> all = {
      {"plain", {}},
      {"synthetic", {.drafter = "synthetic(alpha=0.8)", .tree = "chain(6)"}},
      {"rarely_right", {.drafter = "synthetic(alpha=0.3)", .tree = "chain(6)"}},
      {"ngram", {.drafter = "ngram", .tree = "chain(4)"}},
      {"self", {.drafter = "self", .tree = "chain(2)"}},
      {"shared_vocabulary",
       {.drafter = "independent(path=" + thinned.path() + ",vocabulary=shared)", .tree = "expansion(2,2)"}},
      {"pard", {.drafter = "pard(path=" + kModels + "/pard)", .tree = "expansion(2,2,1)"}, 300},
      {"dflash", {.drafter = "dflash(path=" + kModels + "/dflash)", .tree = "expansion(2,2,1)"}, 300},
      {"eagle", {.drafter = "eagle(path=" + kModels + "/eagle)", .tree = "expansion(2,2)"}},
      {"medusa", {.drafter = "medusa(path=" + medusa.path() + ")", .tree = "expansion(2,2)"}},
      {"medusa_ranks", {.drafter = "medusa(path=" + medusa.path() + ")", .tree = "static_ranks(preset=medusa)"}, 300},
  };
  const SamplingParams penalties = {.repetition_penalty = 1.2, .presence_penalty = 0.3, .frequency_penalty = 0.1};
  all.push_back({"penalties_plain", {}, 1000, penalties});
  all.push_back({"penalties", {.drafter = independent, .tree = "expansion(2,2)"}, 300, penalties});
  const auto processor = std::make_shared<Unchanging>();
  all.push_back({"processor", {.drafter = independent, .tree = "expansion(2,2)"}, 300, {}, processor});
  for (const std::string& tree : tree_policies().names()) {
    all.push_back({tree, {.drafter = independent, .tree = tree, .allow_lossy = true}, 300});
  }
  return all;
}

class Allocation : public testing::TestWithParam<Case> {};

/// After warm-up a step allocates nothing, and the heap is as large at the end as after a hundred tokens.
TEST_P(Allocation, StepsAllocateNothing) {
  nn::LoadOptions options;
  options.pool = std::make_shared<kernels::ThreadPool>(2);
  Engine engine(nn::load_model(kModels + "/target", options), GetParam().spec, nn::draft_loader(options));
  Request request;
  request.prompt = {5, 6, 7};
  request.sampling = GetParam().sampling;
  request.logits_processor = GetParam().logits_processor;
  request.max_new_tokens = GetParam().tokens;
  int tokens = 0;
  long allocations_warm = 0;
  std::size_t heap_warm = 0;
  long allocations_end = 0;
  std::size_t heap_end = 0;
  request.on_token = [&](TokenId, bool) {
    ++tokens;
    if (tokens == 100) allocations_warm = allocations, heap_warm = mallinfo2().uordblks;
    if (tokens == request.max_new_tokens) allocations_end = allocations, heap_end = mallinfo2().uordblks;
    return false;
  };
  engine.generate({&request, 1});
  ASSERT_EQ(tokens, request.max_new_tokens);
  EXPECT_LE(heap_end, heap_warm + 4096) << "one page, for lazily made buffers of the C library";
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  EXPECT_EQ(allocations_end - allocations_warm, 0);
#else
  (void)allocations_end;
  (void)allocations_warm;
#endif
}

INSTANTIATE_TEST_SUITE_P(Specs, Allocation, testing::ValuesIn(cases()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace specmoe
