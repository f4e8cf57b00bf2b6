#include "tree/grow_tree.h"

#include <cmath>
#include <map>

#include "core/grow.h"
#include "draft/propose.h"
#include "tests/cuda/device_test.h"

namespace specmoe::cuda {
namespace {

using kernels::Rows;
using kernels::cuda::DeviceArray;
using kernels::cuda::DeviceTest;

constexpr int kThreads = 64;

std::vector<TokenId> text_of(const TokenTree& tree, NodeId node) {
  std::vector<TokenId> text;
  for (; node != TokenTree::kRoot; node = tree.parent(node)) text.insert(text.begin(), tree.token(node));
  return text;
}

/// A distribution that depends on the text alone: with equal probabilities, and with tokens that have none.
std::vector<float> row_after(const std::vector<TokenId>& text, int vocab, std::uint64_t seed) {
  for (const TokenId token : text) seed = seed * 31 + static_cast<std::uint64_t>(token) + 1;
  const PhiloxUniforms noise(seed, 3, 0);
  const auto u = [&noise](int x) { return noise.value({x, Purpose::kPlugin, 0}); };
  const double support = seed % 5 == 0 ? 2.0 / vocab : 0.6;  // now and then hardly anything
  std::vector<float> row(static_cast<std::size_t>(vocab), 0.0F);
  double total = 0.0;
  for (int x = 0; x < vocab; ++x) {
    if (x > 0 && u(x) > support) continue;
    row[x] = static_cast<float>(std::pow(std::floor(1.0 + 5.0 * u(x + vocab)), 3.0));
    total += static_cast<double>(row[x]);
  }
  for (float& value : row) value = static_cast<float>(static_cast<double>(value) / total);
  return row;
}

/// Proposes row_after() of the paths.
class RowDrafter final : public Drafter {
 public:
  explicit RowDrafter(std::uint64_t seed) : seed_(seed) {}
  bool deterministic() const override { return false; }
  void attach(const DraftContext&) override {}
  std::unique_ptr<DraftState> open(std::span<const TokenId>, HiddenRows, int) override { return nullptr; }
  void propose(std::span<const ProposeRequest> requests) override {
    for (const ProposeRequest& request : requests) {
      for (std::size_t i = 0; i < request.frontier.size(); ++i) {
        const auto text = text_of(request.draft->tree, request.frontier[i]);
        (*request.proposals)[i].rows.push_back(
            request.draft->rows.add_dense(row_after(text, request.draft->rows.vocab(), seed_)));
      }
    }
  }
  void commit(DraftState&, const TokenTree&, const Verdict&, HiddenRows) override {}

 private:
  std::uint64_t seed_;
};

class GrowTreeTest : public DeviceTest {
 protected:
  static void grow_on_cpu(Drafter& drafter, DraftState* state, const TreePolicy& tree, const SamplingParams& sampling,
                          int max_depth, std::uint64_t step, Draft<float>& draft) {
    PhiloxUniforms uniforms(sampling.seed, sampling.sequence, step);
    GrowWorkspace workspace;
    LogitChanges changes;
    GrowRequest request = {state, &draft, &sampling, &changes, &uniforms, max_depth};
    grow({&request, 1}, drafter, tree, workspace);
  }

  /// A device draft of the root alone, with room for the plan's trees.
  void plant(const LevelPlan& plan, const UniformKey& key, TokenId root, int max_depth) {
    DeviceDraft::Room most = {1, 1, 1};
    int frontier = 1;
    asked_.clear();
    for (const int width : plan.widths) {
      asked_.push_back(frontier);
      most.nodes += frontier * width;
      most.frontier = std::max(most.frontier, frontier);
      most.children = std::max(most.children, width);
      frontier = plan.frontier > 0 ? std::min(frontier * width, plan.frontier) : frontier * width;
    }
    memory_ = std::make_unique<DeviceDraftMemory>(most, 0);
    const DeviceDraft& draft = memory_->draft();
    put(draft.nodes, 1);
    put(draft.tokens, root);
    put(draft.parents, -1);
    put(draft.depths, 0);
    put(draft.row_of, -1);
    put(draft.cache_rows, -1);
    put(draft.scores, 0.0);
    put(draft.max_depth, max_depth);
    put(draft.frontier, 0);
    put(draft.frontier_size, max_depth > 0 ? 1 : 0);
    put(draft.uniforms, key);
    put(draft.broken, 0U);
  }
  template <class T>
  void put(T* to, std::type_identity_t<T> value) {
    stream_->copy(to, &value, sizeof(value));
    stream_->synchronize();
  }
  TokenTree tree() {
    const DeviceDraft& draft = memory_->draft();
    const auto nodes = static_cast<std::size_t>(download(draft.nodes, 1)[0]);
    const auto tokens = download(draft.tokens, nodes);
    const auto parents = download(draft.parents, nodes);
    const auto depths = download(draft.depths, nodes);
    TokenTree tree(tokens[0]);
    for (std::size_t n = 1; n < nodes; ++n) tree.add(parents[n], tokens[n]);
    for (std::size_t n = 0; n < nodes; ++n) EXPECT_EQ(depths[n], tree.depth(static_cast<NodeId>(n)));
    return tree;
  }
  void expect_tree(const TokenTree& expected, const std::string& where) {
    const TokenTree got = tree();
    EXPECT_EQ(std::vector<TokenId>(got.tokens().begin(), got.tokens().end()),
              std::vector<TokenId>(expected.tokens().begin(), expected.tokens().end()))
        << where;
    EXPECT_EQ(std::vector<NodeId>(got.parents().begin(), got.parents().end()),
              std::vector<NodeId>(expected.parents().begin(), expected.parents().end()))
        << where;
  }
  DeviceLevel level_of(const LevelPlan& plan, std::size_t i) const {
    const bool last = i + 1 == plan.widths.size();
    return {static_cast<int>(i) + 1,
            last ? 0 : asked_[i + 1],
            plan.frontier > 0,
            plan.frontier > 0 || plan.kept > 0,
            {},
            0};
  }

  std::unique_ptr<DeviceDraftMemory> memory_;
  std::vector<int> asked_;  // most frontier nodes of each level
};

TEST_P(GrowTreeTest, GrowsTheTreesOfTheCpu) {
  int grown = 0, pruned = 0, fewer = 0;
  for (const std::string spec : {"chain(gamma=3)", "expansion(3,2,law=iid)", "expansion(2,2,1)",
                                 "expansion(3,2,law=top_plus_sampled)", "expansion(2,3,law=deterministic)",
                                 "confidence(nodes=6,depth=3,width=3)", "confidence(nodes=11,depth=4,width=3)"}) {
    const auto policy = tree_policies().create(spec);
    const LevelPlan plan = *policy->level_plan();
    for (const int vocab : {5, 300}) {
      for (std::uint64_t seed = 1; seed <= 4; ++seed) {
        const int max_depth = seed == 3 ? 1 : seed == 4 ? static_cast<int>(seed % 2) : policy->max_depth();
        const SamplingParams sampling = {.temperature = 1.0, .seed = seed, .sequence = seed % 2};
        Draft<float> expected;
        expected.law = policy->law();
        expected.reset(4, vocab);
        RowDrafter drafter(seed);
        grow_on_cpu(drafter, nullptr, *policy, sampling, max_depth, seed, expected);

        plant(plan, {seed, seed % 2, seed}, 4, max_depth);
        const DeviceDraft& draft = memory_->draft();
        const int most_rows = static_cast<int>(plan.widths.size()) * draft.most.frontier;
        const DeviceArray<float> rows(static_cast<std::size_t>(most_rows * vocab));
        const Rows<float> all = {rows.data(), most_rows, vocab, vocab};
        for (std::size_t i = 0; i < plan.widths.size(); ++i) {
          const auto frontier = download(draft.frontier, static_cast<std::size_t>(download(draft.frontier_size, 1)[0]));
          const TokenTree now = tree();
          DeviceLevel level = level_of(plan, i);
          level.rows = all;
          level.first_row = static_cast<int>(i) * draft.most.frontier;
          for (std::size_t node = 0; node < frontier.size(); ++node) {
            const auto row = row_after(text_of(now, frontier[node]), vocab, seed);
            stream_->copy(all.row(level.first_row + static_cast<int>(node)), row.data(), row.size() * sizeof(float));
            stream_->synchronize();
          }
          propose_by_law(draft, policy->law(), all, level.first_row, plan.widths[i], *stream_, kThreads);
          grow_level(draft, level, *stream_);
        }
        const int before = download(draft.nodes, 1)[0];
        if (plan.kept > 0) keep_best_nodes(draft, plan.kept, *stream_);
        const std::string where = concat(spec, ", V = ", vocab, ", seed ", seed);
        expect_tree(expected.tree, where);
        const auto row_of = download(draft.row_of, static_cast<std::size_t>(expected.tree.size()));
        for (NodeId n = 1; n < expected.tree.size(); ++n) {
          ASSERT_EQ(row_of[n] < 0, expected.row_of[n] < 0) << where;
          if (row_of[n] < 0) continue;
          const auto own = download(all.row(row_of[n]), static_cast<std::size_t>(vocab));
          const auto row = expected.rows.row(expected.row_of[n]).dense();
          EXPECT_EQ(own, std::vector<float>(row.begin(), row.end())) << where;
        }
        EXPECT_EQ(download(draft.broken, 1)[0], 0U);
        grown += expected.tree.drafted();
        pruned += before - expected.tree.size();
        fewer += expected.tree.size() < policy->max_nodes() ? 1 : 0;
      }
    }
  }
  EXPECT_GT(grown, 100);
  EXPECT_GT(pruned, 10);
  EXPECT_GT(fewer, 10);
}

TEST_P(GrowTreeTest, LooksUpNgramsAsTheCpu) {
  int proposed = 0;
  for (const std::string shape : {"chain(gamma=3)", "expansion(3,2)", "confidence(nodes=4,depth=2,width=3)"}) {
    const auto policy = tree_policies().create(shape);
    const LevelPlan plan = *policy->level_plan();
    for (const std::string spec : {"ngram", "ngram(max_n=2,min_n=2,choices=2)", "ngram(max_n=9,min_n=1,choices=8)"}) {
      const auto drafter = drafters().create(spec);
      for (const int length : {1, 2, 7, 150}) {
        const PhiloxUniforms noise(static_cast<std::uint64_t>(length), 0, 0);
        std::vector<TokenId> text;
        for (int i = 0; i < length; ++i) {
          text.push_back(static_cast<TokenId>(4.0 * noise.value({i, Purpose::kPlugin, 0})));
        }
        const auto state = drafter->open(text, {}, 200);
        Draft<float> expected;
        expected.reset(text.back(), 4);
        grow_on_cpu(*drafter, state.get(), *policy, {}, policy->max_depth(), 0, expected);

        plant(plan, {}, text.back(), policy->max_depth());
        const auto device_text = upload(text);
        const auto device_length = upload(std::vector<std::int32_t>{length});
        for (std::size_t i = 0; i < plan.widths.size(); ++i) {
          propose_ngram(memory_->draft(), drafter->recipe()->ngram, {device_text.data(), device_length.data()},
                        plan.widths[i], *stream_, kThreads);
          grow_level(memory_->draft(), level_of(plan, i), *stream_);
        }
        if (plan.kept > 0) keep_best_nodes(memory_->draft(), plan.kept, *stream_);
        expect_tree(expected.tree, concat(shape, ", ", spec, ", ", length, " tokens"));
        proposed += expected.tree.drafted();
      }
    }
  }
  EXPECT_GT(proposed, 50);
}

TEST_P(GrowTreeTest, TellsWhichNodesLogitsAreNaN) {
  plant({{2}}, {}, 1, 1);
  const DeviceDraft& draft = memory_->draft();
  const auto rows = upload(std::vector<float>(40, NAN));
  propose_by_law(draft, DraftLaw::kIid, {rows.data(), 1, 40, 40}, 0, 2, *stream_, kThreads);
  EXPECT_EQ(download(draft.broken, 1)[0], 1U);
  EXPECT_EQ(download(draft.proposed_counts, 1)[0], 0);
  put(draft.broken, 0U);
  const auto argmax = upload(std::vector<TokenId>{-1});
  propose_argmax(draft, argmax.data(), *stream_);
  EXPECT_EQ(download(draft.broken, 1)[0], 1U);
}

SPECMOE_DEVICE_TESTS(GrowTreeTest);

}  // namespace
}  // namespace specmoe::cuda
