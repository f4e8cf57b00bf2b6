#include <set>

#include "core/engine.h"
#include "core/step/step_kernels.h"
#include "tests/cuda/device_test.h"
#include "tests/cuda/tiny_model.h"

namespace specmoe::cuda {
namespace {

// A target, itself as a drafter, and a drafter that often thinks otherwise.
std::string target_path() {
  static const testing::TinyModel model("target");
  return model.path();
}
std::string itself() { return "independent(path=" + target_path() + ")"; }
std::string another() {
  static const testing::TinyModel model("drafter", 0.5F);
  return "independent(path=" + model.path() + ")";
}
const SamplingParams kSampled = {.temperature = 0.8, .seed = 7};
const SamplingParams kCut = {.temperature = 0.8, .top_k = 20, .top_p = 0.95, .seed = 7};  // slow in the emulation

nn::LoadOptions on_device() {
  nn::LoadOptions options;
  options.device = "cuda";
  options.threads = 1;
  return options;
}

Engine engine_of(const EngineSpec& spec) {
  static const auto target = nn::load_model(target_path(), on_device());
  return Engine(target, spec, draft_loader(on_device()));
}

Request request_of(const SamplingParams& sampling, int tokens = 6) {
  Request request;
  request.prompt = {5, 17, 5, 17, 5};
  request.sampling = sampling;
  request.max_new_tokens = tokens;
  return request;
}

/// The counts of a step, without its times.
std::vector<std::int32_t> counts_of(const StepRecord& step) {
  return {step.drafted,   step.accepted,      step.rejected,     step.unjudged, step.emitted,
          step.truncated, step.drafted_depth, step.judged_depth, step.pass_rows};
}

void expect_same(const RequestRecord& got, const RequestRecord& expected) {
  EXPECT_EQ(got.tokens, expected.tokens);
  EXPECT_EQ(got.from_draft, expected.from_draft);
  EXPECT_EQ(got.finish, expected.finish);
  EXPECT_EQ(got.moe_layers, expected.moe_layers);
  EXPECT_EQ(got.unique_experts, expected.unique_experts);
  ASSERT_EQ(got.steps.size(), expected.steps.size());
  for (std::size_t i = 0; i < got.steps.size(); ++i) {
    EXPECT_EQ(counts_of(got.steps[i]), counts_of(expected.steps[i])) << "step " << i;
  }
}

class WholeStepTest : public kernels::cuda::DeviceTest {
 protected:
  /// Runs a request by whole steps and by steps that the host leads, which a batch of more than one has.
  static RequestRecord compare(const EngineSpec& spec, const Request& request) {
    SCOPED_TRACE(concat(spec.drafter, " ", spec.tree, " ", spec.acceptance, " t=", request.sampling.temperature));
    Engine engine = engine_of(spec);
    EXPECT_EQ(engine.step_leader(), "whole steps on cuda:0");
    const RequestRecord whole = engine.generate({&request, 1}, 1)[0];
    const RequestRecord led = engine.generate({&request, 1}, 2)[0];
    EXPECT_TRUE(whole.whole_steps);
    EXPECT_FALSE(led.whole_steps);
    expect_same(whole, led);
    return whole;
  }
};

TEST_P(WholeStepTest, PlainDecodingIsTheHosts) {
  compare({}, request_of({}, 4));
  compare({}, request_of(kSampled, 4));
}

TEST_P(WholeStepTest, GreedyTextAndCountsAreTheHosts) {
  std::size_t accepted = 0;
  const auto drafted = [&](const RequestRecord& record) {
    for (const StepRecord& step : record.steps) accepted += static_cast<std::size_t>(step.accepted);
  };
  drafted(compare({itself(), "chain(gamma=2)"}, request_of({})));
  drafted(compare({another(), "expansion(2,2)"}, request_of({})));
  drafted(compare({itself(), "confidence(nodes=3,depth=2,width=2)"}, request_of({})));
  drafted(compare({"ngram", "chain(gamma=3)"}, request_of({})));
  drafted(compare({"ngram(choices=2)", "expansion(2,1)"}, request_of({}, 4)));
  EXPECT_GT(accepted, 5U);
}

TEST_P(WholeStepTest, SampledTextAndCountsAreTheHosts) {
  int accepted = 0, rejected = 0;
  for (const auto& [drafter, tree, acceptance] :
       std::vector<std::array<std::string, 3>>{{itself(), "chain(gamma=2)", "token"},
                                               {another(), "chain(gamma=2)", "block"},
                                               {itself(), "expansion(2,1)", "multi_step"},
                                               {another(), "expansion(2,1,law=iid)", "greedy_ot"},
                                               {itself(), "expansion(2,1,law=top_plus_sampled)", "naive"},
                                               {itself(), "confidence(nodes=3,depth=2,width=2)", "naive"}}) {
    const RequestRecord record = compare({drafter, tree, acceptance}, request_of(kSampled, 5));
    for (const StepRecord& step : record.steps) {
      accepted += step.accepted;
      rejected += step.rejected;
    }
  }
  EXPECT_GT(accepted, 3);
  EXPECT_GT(rejected, 3);
  compare({another(), "chain(gamma=1)", "token"}, request_of(kCut, 3));
}

TEST_P(WholeStepTest, EndsWhereTheHostEnds) {
  Request request = request_of({}, 8);
  const RequestRecord record = compare({itself(), "chain(gamma=3)"}, request);
  ASSERT_GT(record.tokens.size(), 2U);
  request.stop_tokens = {record.tokens[1]};
  EXPECT_EQ(compare({itself(), "chain(gamma=3)"}, request).finish, FinishReason::kStopToken);
  request.stop_tokens.clear();
  request.max_new_tokens = 1;
  compare({itself(), "chain(gamma=3)"}, request);
}

// Whole steps know nothing of penalties: the host leads steps of such requests, even where they are alone.
TEST_P(WholeStepTest, PenaltiesAreLeftToTheHost) {
  const Request request = request_of({.repetition_penalty = 1.5, .frequency_penalty = 0.5});
  Engine plain = engine_of({});
  const RequestRecord expected = plain.generate({&request, 1}, 1)[0];
  const Request without = request_of({});
  EXPECT_NE(expected.tokens, plain.generate({&without, 1}, 1)[0].tokens);
  for (const EngineSpec& spec : {EngineSpec{itself(), "chain(gamma=2)"}, EngineSpec{another(), "expansion(2,2)"}}) {
    Engine engine = engine_of(spec);
    EXPECT_EQ(engine.step_leader(request.sampling), "steps led by the host: penalties are for the host alone");
    const RequestRecord record = engine.generate({&request, 1}, 1)[0];
    EXPECT_FALSE(record.whole_steps);
    EXPECT_EQ(record.tokens, expected.tokens);
    EXPECT_TRUE(engine.generate({&without, 1}, 1)[0].whole_steps);
  }
}

// One engine runs texts of different lengths, laws and stops one after another: nothing of the last one is left.
TEST_P(WholeStepTest, SequencesFollowOneAnother) {
  Engine engine = engine_of({itself(), "expansion(2,1)", "multi_step"});
  std::vector<Request> requests = {request_of({}, 3), request_of(kSampled, 4), request_of({}, 3)};
  requests[1].prompt = {9, 8, 7, 6, 5, 4, 3, 2, 1};
  requests[2].stop_tokens = {39, 2};
  const auto all = engine.generate(requests, 1);
  for (std::size_t i = 0; i < requests.size(); ++i) {
    Engine fresh = engine_of({itself(), "expansion(2,1)", "multi_step"});
    expect_same(all[i], fresh.generate({&requests[i], 1}, 1)[0]);
  }
}

TEST_P(WholeStepTest, LoopsOnTheDevice) {
  EngineSpec spec = {itself(), "chain(gamma=2)", "token"};
  for (const SamplingParams& sampling : {SamplingParams{}, kSampled}) {
    const Request request = request_of(sampling, 7);
    spec.device_loop = false;
    const RequestRecord one_by_one = engine_of(spec).generate({&request, 1}, 1)[0];
    spec.device_loop = true;
    expect_same(engine_of(spec).generate({&request, 1}, 1)[0], one_by_one);
  }
}

// Trees of one node (no n-gram is known), of few and of as many as fit; with passes of their size, also in a loop.
TEST_P(WholeStepTest, ChoosesTheSizeOfThePass) {
  std::set<int> sizes;
  for (const auto& [drafter, tree] : std::vector<std::array<std::string, 2>>{
           {"ngram", "chain(gamma=4)"}, {itself(), "confidence(nodes=3,depth=2,width=2)"}}) {
    for (const SamplingParams& sampling : {SamplingParams{}, kSampled}) {
      const Request request = request_of(sampling, 7);
      EngineSpec spec = {drafter, tree};
      const RequestRecord largest = engine_of(spec).generate({&request, 1}, 1)[0];
      spec.device_switch = true;
      expect_same(engine_of(spec).generate({&request, 1}, 1)[0], largest);
      spec.device_loop = true;
      expect_same(engine_of(spec).generate({&request, 1}, 1)[0], largest);
      for (const StepRecord& step : largest.steps) sizes.insert(pass_size(step.pass_rows));
    }
  }
  EXPECT_GE(sizes.size(), 3U) << "the trees were of too few sizes";
}

TEST_P(WholeStepTest, TheHostLeadsWhatTheDeviceCannot) {
  const auto leader = [](const EngineSpec& spec) { return engine_of(spec).step_leader(); };
  EXPECT_EQ(leader({itself(), "best_first"}), "steps led by the host: the tree's shape is not told level by level");
  EXPECT_EQ(leader({"ngram(max_n=100)"}), "steps led by the host: ngram's max_n is more than a device has");
  EXPECT_EQ(leader({itself(), "chain", "traversal"}),
            "steps led by the host: the acceptance policy judges on the CPU alone");
  nn::LoadOptions options;
  options.threads = 1;
  EXPECT_EQ(Engine(nn::load_model(target_path(), options), {"ngram"}).step_leader(), "");
}

SPECMOE_DEVICE_TESTS(WholeStepTest);

}  // namespace
}  // namespace specmoe::cuda
