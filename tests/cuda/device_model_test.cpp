#include <filesystem>
#include <numeric>

#include "core/engine.h"
#include "core/logit_rows.h"
#include "core/nn/cuda/device_weights.h"
#include "core/nn/device_loader.h"
#include "tests/cuda/device_test.h"
#include "tests/cuda/tiny_model.h"
#include "tests/nn/model_fixture.h"

namespace specmoe::nn::cuda {
namespace {

using testing::Fixture;
using testing::load_fixture;

std::shared_ptr<LanguageModel> load_on(const std::string& device, const std::string& folder,
                                       kernels::DType dtype = kernels::DType::kFloat32,
                                       kernels::DType kv_dtype = kernels::DType::kFloat32) {
  LoadOptions options;
  options.dtype = dtype;
  options.kv_dtype = kv_dtype;
  options.device = device;
  options.threads = 1;
  return load_model(folder, options);
}

std::string error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

class DeviceModelTest : public kernels::cuda::DeviceTest {
 protected:
  static void expect_branches_are_texts(kernels::DType kv_dtype) {
    const Fixture fixture = load_fixture("mixtral_b");
    const auto model = load_on("cuda", fixture.folder, kernels::DType::kBFloat16, kv_dtype);
    const auto tree = model->new_cache(32);
    testing::append(*model, *tree, std::span(fixture.ids).first(2));
    const std::vector<TokenId> tokens = {7, 8, 9, 10};
    testing::run_rows(*model, *tree, tokens, std::vector<std::int32_t>{-1, 0, 0, 2});
    tree->keep(std::vector<std::int32_t>{0, 2, 3});
    const ForwardResult after_tree = testing::append(*model, *tree, std::vector<TokenId>{11});
    const auto text = model->new_cache(32);
    testing::append(*model, *text, std::span(fixture.ids).first(2));
    for (const TokenId token : {7, 9, 10}) testing::append(*model, *text, std::vector<TokenId>{token});
    const ForwardResult after_text = testing::append(*model, *text, std::vector<TokenId>{11});
    EXPECT_TRUE(testing::same_bits(after_tree.logits, after_text.logits));
  }
};

TEST_P(DeviceModelTest, SpeculativeTextIsThePlainOneAndTheCpus) {
  const Fixture fixture = load_fixture("mixtral_a");
  std::vector<Request> requests(2);
  requests[0].prompt.assign(fixture.ids.begin(), fixture.ids.begin() + 3);
  requests[1].prompt.assign(fixture.ids.begin() + 3, fixture.ids.begin() + 5);
  for (Request& request : requests) request.max_new_tokens = 5;
  const auto texts = [&](const std::string& device, const EngineSpec& spec) {
    LoadOptions options;
    options.device = device;
    options.threads = 1;
    Engine engine(load_on(device, fixture.folder), spec, draft_loader(options));
    std::vector<std::vector<TokenId>> all;
    for (const RequestRecord& record : engine.generate(requests, 2)) all.push_back(record.tokens);
    return all;
  };
  const auto plain = texts("cpu", {});
  EXPECT_EQ(texts("cuda", {}), plain);
  // The model drafts for itself: the second child is never kept, so rows have to move.
  EXPECT_EQ(texts("cuda", {"independent(path=" + fixture.folder + ")", "expansion(2,1)"}), plain);
}

// Its model runs on the device, what is between the vocabularies on the host.
TEST_P(DeviceModelTest, ADrafterOfAnotherVocabularyIsLedByTheHost) {
  const specmoe::testing::TinyModel target("vocabulary_target");
  const specmoe::testing::TinyModel drafter("vocabulary_drafter", 0.3F);
  for (const auto* model : {&target, &drafter}) {
    std::filesystem::copy_file(SPECMOE_TEST_DATA "/golden/tokenizer/gpt2.json", model->path() + "/tokenizer.json");
  }
  Request request;
  request.prompt = {3, 1, 4, 1, 5};
  request.max_new_tokens = 10;
  LoadOptions options;
  options.dtype = kernels::DType::kFloat32;
  options.device = "cuda";
  options.threads = 1;
  const auto run = [&](const std::string& vocabulary, const std::string& leader) {
    const std::string spec = "independent(path=" + drafter.path() + ",vocabulary=" + vocabulary + ")";
    Engine engine(load_model(target.path(), options), {spec, "expansion(2,1)"}, draft_loader(options));
    EXPECT_EQ(engine.step_leader(), leader);
    return engine.generate(std::span(&request, 1), 1)[0];
  };
  const RequestRecord same = run("same", "whole steps on cuda:0");
  const RequestRecord shared = run("shared", "steps led by the host: no device leads this drafter");
  EXPECT_EQ(shared.tokens, same.tokens);
  EXPECT_EQ(shared.from_draft, same.from_draft);
  EXPECT_NE(std::accumulate(same.from_draft.begin(), same.from_draft.end(), 0), 0);
}

TEST_P(DeviceModelTest, LogitsStayOnTheDeviceWhenTheyAreKept) {
  const Fixture fixture = load_fixture("llama_default");
  const auto model = load_on("cuda", fixture.folder);
  const auto cache = model->new_cache(16);
  const auto count = 3 * static_cast<std::size_t>(fixture.vocab);
  const ForwardResult result = testing::append(*model, *cache, std::span(fixture.ids).first(3));
  const std::shared_ptr<float> kept = device_logits(*model);
  testing::append(*model, *cache, std::span(fixture.ids).subspan(3, 2));  // another pass does not touch them
  EXPECT_EQ(download(kept.get(), count), result.logits);
  EXPECT_NE(download(device_logits(*model).get(), 2 * static_cast<std::size_t>(fixture.vocab)),
            std::vector<float>(result.logits.begin(), result.logits.begin() + 2 * fixture.vocab));
}

// A prompt of a whole chunk and some more: the chunk goes through the other product, for plain and speculative alike.
TEST_P(DeviceModelTest, FastPrefillKeepsSpeculativeTextPlain) {
  const specmoe::testing::TinyModel tiny("fast_prefill");
  Request request;
  for (TokenId i = 0; i < kPrefillRows + 4; ++i) request.prompt.push_back(3 + i * i % 31);
  request.max_new_tokens = 6;
  LoadOptions options;
  options.dtype = kernels::DType::kFloat32;
  options.device = "cuda";
  options.fast_prefill = true;
  options.threads = 1;
  const auto text = [&](const EngineSpec& spec) {
    const auto model = load_model(tiny.path(), options);
    EXPECT_NE(model->info().instruction_set.find("cuBLASLt"), std::string::npos);
    Engine engine(model, spec, draft_loader(options));
    return engine.generate(std::span(&request, 1), 1)[0].tokens;
  };
  const auto plain = text({});
  EXPECT_EQ(text({"ngram", "chain(gamma=2)"}), plain);
  options.fast_prefill = false;
  options.device = "cpu";
  const auto cpu = load_model(tiny.path(), options);
  EXPECT_EQ(Engine(cpu, {}, draft_loader(options)).generate(std::span(&request, 1), 1)[0].tokens, plain);
  options.fast_prefill = true;
  EXPECT_NE(error_of([&] { load_model(tiny.path(), options); }).find("fast_prefill"), std::string::npos);
}

// Row t of a pass has the bits it has alone, also behind rows that were moved.
TEST_P(DeviceModelTest, BranchesHaveTheBitsOfTheirTexts) {
  for (const kernels::DType kv_dtype : {kernels::DType::kFloat32, kernels::DType::kBFloat16}) {
    expect_branches_are_texts(kv_dtype);
  }
}

TEST_P(DeviceModelTest, RoundsWhatItCachesAsTheCpuDoes) {
  const Fixture fixture = load_fixture("mixtral_a");
  const auto logits = [&](const std::string& device, kernels::DType kv_dtype) {
    const auto model = load_on(device, fixture.folder, kernels::DType::kFloat32, kv_dtype);
    EXPECT_EQ(model->info().kv_dtype, kernels::dtype_name(kv_dtype));
    const auto cache = model->new_cache(16);
    return testing::append(*model, *cache, std::span(fixture.ids).first(8)).logits;
  };
  const auto furthest = [](const std::vector<float>& a, const std::vector<float>& b) {
    double distance = 0;
    for (std::size_t i = 0; i < a.size(); ++i) distance = std::max(distance, std::abs(double{a[i]} - b[i]));
    return distance;
  };
  const std::vector<float> exact = logits("cpu", kernels::DType::kFloat32);
  const std::vector<float> cpu = logits("cpu", kernels::DType::kBFloat16);
  const std::vector<float> device = logits("cuda", kernels::DType::kBFloat16);
  // A few keys lie so near the middle of two bfloat16 that both round them differently; the others are equal.
  EXPECT_LT(furthest(device, cpu), furthest(exact, cpu) / 4);
}

TEST_P(DeviceModelTest, RefusesWhatTheDeviceCannotDoBeforeItAllocates) {
  const auto folder = [](const std::string& name) { return load_fixture(name).folder; };
  EXPECT_NE(error_of([&] { load_on("cuda", folder("llama_default"), kernels::DType::kInt8); }).find("int8"),
            std::string::npos);
  EXPECT_NE(error_of([&] { load_on("cuda:7", folder("llama_default")); }).find("7"), std::string::npos);
  EXPECT_NE(error_of([&] { load_on("cuda:x", folder("llama_default")); }).find("known: cpu, cuda"), std::string::npos);
  LoadOptions options;
  options.device = "cuda";
  options.kv_dtype = kernels::DType::kInt8;
  EXPECT_NE(error_of([&] { load_model(folder("llama_default"), options); }).find("kv_dtype int8"), std::string::npos);
}

TEST(DeviceSizesTest, RefusesWhatKernelsDoNotHold) {
  const auto error_for = [](int head_dim, int heads, int experts) {
    ModelSpec spec;
    spec.name = "large";
    LayerSpec layer;
    layer.attention.heads = heads;
    layer.attention.kv_heads = 1;
    layer.attention.head_dim = head_dim;
    layer.ffn.router.emplace().experts = experts;
    spec.layers = {layer};
    return error_of([&] { check_sizes(spec); });
  };
  EXPECT_EQ(error_for(256, 32, 1024), "");
  const std::string limits =
      "model large on cuda: expected heads of at most 256 elements, 32 query heads per kv head and 1024 experts, got ";
  EXPECT_EQ(error_for(260, 1, 8), limits + "260, 1 and 8; use device cpu");
  EXPECT_EQ(error_for(64, 33, 8), limits + "64, 33 and 8; use device cpu");
  EXPECT_EQ(error_for(64, 1, 1025), limits + "64, 1 and 1025; use device cpu");
}

TEST(DeviceMemoryTest, ErrorHoldsTheWholeTable) {
  MemoryTable table;
  table.add("experts", std::int64_t{84} << 30);
  table.add("attention", std::int64_t{3} << 30);
  const kernels::cuda::DeviceInfo info = {"card", 132, 90, std::size_t{80} << 30, std::size_t{79} << 30};
  const std::string error = error_of([&] { check_device_memory(table, "large", "cuda:0", info); });
  for (const char* part :
       {"large needs 87 GiB on cuda:0 (card)", "79 of 80 GiB are free", "experts 84, attention 3 GiB"})
    EXPECT_NE(error.find(part), std::string::npos) << error;
  table.lines.pop_back();
  table.lines[0].bytes = std::int64_t{79} << 30;
  EXPECT_NO_THROW(check_device_memory(table, "large", "cuda:0", info));
}

#ifdef SPECMOE_CUDA_EMULATION
// What cuBLASLt works in is counted before anything is allocated.
TEST_P(DeviceModelTest, RefusesFastPrefillWithoutRoomForIt) {
  LoadOptions options;
  options.device = "cuda";
  options.threads = 1;
  const std::string folder = load_fixture("llama_default").folder;
  const kernels::cuda::DeviceArray<std::byte> most(kernels::cuda::device_info(0).free_bytes - (std::size_t{24} << 20));
  EXPECT_NO_THROW(load_model(folder, options));
  options.fast_prefill = true;
  EXPECT_NE(error_of([&] { load_model(folder, options); }).find("prompts by cuBLASLt 0.03"), std::string::npos);
}

TEST_P(DeviceModelTest, StaysUsableAfterTheDeviceRanOutOfMemory) {
  const Fixture fixture = load_fixture("llama_default");
  const auto model = load_on("cuda", fixture.folder);
  EXPECT_NE(error_of([&] { model->new_cache(1 << 24); }).find("out of memory"), std::string::npos);
  const auto cache = model->new_cache(16);
  {
    const std::size_t left = kernels::cuda::device_info(0).free_bytes;
    const kernels::cuda::DeviceArray<std::byte> all(left - 4096);
    EXPECT_NE(error_of([&] { testing::append(*model, *cache, std::span(fixture.ids).first(3)); }).find("out of memory"),
              std::string::npos);
    EXPECT_EQ(cache->staged(), 0);
  }
  const ForwardResult result = testing::append(*model, *cache, std::span(fixture.ids).first(3));
  for (std::size_t i = 0; i < result.logits.size(); ++i) EXPECT_NEAR(result.logits[i], fixture.logits[i], 1e-3);
}
#endif

SPECMOE_DEVICE_TESTS(DeviceModelTest);

}  // namespace
}  // namespace specmoe::nn::cuda
