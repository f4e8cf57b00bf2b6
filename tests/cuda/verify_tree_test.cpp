#include "verify/verify_tree.h"

#include <map>

#include "core/acceptance.h"
#include "core/draw.h"
#include "tests/cuda/device_test.h"

namespace specmoe::cuda {
namespace {

using kernels::cuda::DeviceArray;
using kernels::cuda::DeviceTest;

constexpr int kMostPath = 8;

/// A random distribution: all sizes of mass, some tokens without any, the support of a seed.
std::vector<float> random_row(int vocab, std::uint64_t seed) {
  const PhiloxUniforms noise(seed, 7, 0);
  const auto u = [&noise](int i, int slot) { return noise.value({i, Purpose::kPlugin, slot}); };
  std::vector<float> row(static_cast<std::size_t>(vocab), 0.0F);
  if (u(0, 9) < 0.15) {  // all mass on one token
    row[static_cast<std::size_t>(u(1, 9) * vocab)] = 1.0F;
    return row;
  }
  double total = 0.0;
  for (int x = 0; x < vocab; ++x) {
    if (u(x, 0) < 0.4 && x > 0) continue;
    row[x] = static_cast<float>(std::pow(u(x, 1), 6.0) + 1e-7);
    total += static_cast<double>(row[x]);
  }
  for (float& value : row) value = static_cast<float>(static_cast<double>(value) / total);
  return row;
}

struct Case {
  Draft<float> draft;
  StoredRows<float> target;
  PhiloxUniforms uniforms{0, 0, 0};
};

Case random_case(DraftLaw law, bool chain, int vocab, std::uint64_t seed) {
  Case made;
  made.uniforms = PhiloxUniforms(seed, seed % 3, seed % 5);
  made.draft.law = law;
  made.draft.reset(1, vocab);
  made.target.reset(vocab);
  std::vector<NodeId> added;
  for (NodeId parent = 0; parent < (chain ? 5 : 4) && parent < made.draft.tree.size(); ++parent) {
    std::vector<std::int32_t> rows;
    for (std::uint64_t i = 0; i < 2; ++i) {
      const std::vector<float> row = random_row(vocab, 100 * seed + 10 * static_cast<std::uint64_t>(parent) + i);
      const bool point = std::count(row.begin(), row.end(), 1.0F) == 1;
      const auto token = static_cast<TokenId>(std::max_element(row.begin(), row.end()) - row.begin());
      rows.push_back(point ? made.draft.rows.add_point(token) : made.draft.rows.add_dense(row));
    }
    const std::span<const std::int32_t> drawn_from(rows.data(), law == DraftLaw::kMultiDrafter ? 2 : 1);
    draw_children<float>(made.draft, parent, chain ? 1 : 3, drawn_from, made.uniforms, added);
  }
  for (NodeId n = 0; n < made.draft.tree.size(); ++n) {
    // Now and then the target is the draft, but for the order of things: then everything is accepted, or rounding alone
    // decides.
    const NodeId child = made.draft.tree.first_child(n);
    const bool same = seed % 4 == 0 && child != TokenTree::kNone && made.draft.row_of[child] >= 0 &&
                      !made.draft.row(child).is_point();
    const std::span<const float> row = same ? made.draft.row(child).dense() : std::span<const float>{};
    made.target.add_dense(same ? std::vector<float>(row.begin(), row.end())
                               : random_row(vocab, 5000 + 100 * seed + static_cast<std::uint64_t>(n)));
  }
  return made;
}

class VerifyTreeTest : public DeviceTest {
 protected:
  VerifyCase upload_case(Case& from, bool without_replacement) {
    const int nodes = from.draft.tree.size();
    const int vocab = from.target.vocab();
    VerifyCase made;
    made.nodes = nodes;
    made.tokens = keep(from.draft.tree.tokens());
    made.parents = keep(from.draft.tree.parents());
    made.row_of = keep(std::span<const std::int32_t>(from.draft.row_of));
    std::vector<float> rows;
    std::vector<TokenId> points;
    for (int i = 0; i < from.draft.rows.size(); ++i) {
      const ProbRow<float> row = from.draft.rows.row(i);
      points.push_back(row.is_point() ? row.point_token() : -1);
      rows.resize(static_cast<std::size_t>((i + 1) * vocab));
      if (!row.is_point()) std::copy(row.dense().begin(), row.dense().end(), rows.end() - vocab);
    }
    made.draft_rows = {keep(std::span<const float>(rows)), from.draft.rows.size(), vocab, vocab};
    made.draft_points = keep(std::span<const TokenId>(points));
    rows.clear();
    for (int n = 0; n < nodes; ++n) {
      const auto row = from.target.row(n).dense();
      rows.insert(rows.end(), row.begin(), row.end());
    }
    made.target = {keep(std::span<const float>(rows)), nodes, vocab, vocab};
    made.uniforms = from.uniforms.key();
    made.without_replacement = without_replacement;
    return made;
  }
  std::vector<DeviceVerdict> judge(DeviceRule rule, const std::vector<VerifyCase>& cases, int vocab, int threads = 64) {
    const DeviceArray<VerifyCase> device = upload(cases);
    const DeviceArray<DeviceVerdict> verdicts(cases.size());
    const DeviceArray<NodeId> paths(cases.size() * kMostPath);
    verify_tree(rule, device.data(), static_cast<int>(cases.size()), vocab, verdicts.data(), paths.data(), kMostPath,
                *stream_, threads);
    paths_ = download(paths.data(), paths.size());
    return download(verdicts.data(), verdicts.size());
  }

  std::vector<NodeId> paths_;

 private:
  template <class T>
  const T* keep(std::span<const T> values) {
    memory_.emplace_back(std::max<std::size_t>(1, values.size_bytes()));
    stream_->copy(memory_.back().data(), values.data(), values.size_bytes());
    stream_->synchronize();
    return reinterpret_cast<const T*>(memory_.back().data());
  }
  std::vector<DeviceArray<std::byte>> memory_;
};

TEST_P(VerifyTreeTest, DecidesAsTheCpu) {
  std::map<std::string, int> accepted, corrected;
  for (const std::string policy : {"greedy", "naive", "token", "block", "multi_step", "greedy_ot"}) {
    const auto rule = acceptance_policies().create(policy);
    for (const DraftLaw law : {DraftLaw::kDeterministic, DraftLaw::kIid, DraftLaw::kWithoutReplacement,
                               DraftLaw::kTopPlusSampled, DraftLaw::kMultiDrafter}) {
      for (const int vocab : {5, 777}) {
        std::vector<Case> cases;
        std::vector<VerifyCase> device;
        for (std::uint64_t seed = 1; seed <= 12; ++seed) {
          cases.push_back(random_case(law, !rule->judges_trees(), vocab, seed));
          device.push_back(upload_case(cases.back(), rule->on_device(law)->without_replacement));
        }
        const std::vector<DeviceVerdict> got = judge(rule->on_device(law)->rule, device, vocab);
        for (std::size_t i = 0; i < cases.size(); ++i) {
          Verdict expected;
          rule->judge(cases[i].draft, cases[i].target, cases[i].uniforms, expected);
          const std::string where = concat(policy, ", ", law_name(law), ", V = ", vocab, ", case ", i);
          EXPECT_NO_THROW(check_verdict(got[i])) << where;
          EXPECT_EQ(got[i].next, expected.next) << where;
          EXPECT_EQ(got[i].accepted, static_cast<int>(expected.accepted.size())) << where;
          std::vector<NodeId> path = {TokenTree::kRoot};
          path.insert(path.end(), expected.accepted.begin(), expected.accepted.end());
          path.resize(kMostPath, TokenTree::kNone);
          EXPECT_EQ(std::vector<NodeId>(paths_.begin() + i * kMostPath, paths_.begin() + (i + 1) * kMostPath), path)
              << where;
          accepted[policy] += static_cast<int>(expected.accepted.size());
          corrected[policy] += cases[i].draft.tree.is_leaf(path[expected.accepted.size()]) ? 0 : 1;
        }
      }
    }
    // The cases tell something: tokens are accepted, and texts end before the tree does.
    EXPECT_GT(accepted[policy], 20) << policy;
    EXPECT_GT(corrected[policy], 20) << policy;
  }
}

TEST_P(VerifyTreeTest, FollowsTheArgmaxWhereTheTargetIsCertain) {
  Case drafted = random_case(DraftLaw::kDeterministic, false, 50, 3);
  VerifyCase device = upload_case(drafted, false);
  const TokenTree& tree = drafted.draft.tree;
  const NodeId second = tree.next_sibling(tree.first_child(TokenTree::kRoot));
  std::vector<TokenId> argmax(static_cast<std::size_t>(tree.size()), 9);
  argmax[0] = tree.token(second);
  argmax[second] = tree.first_child(second) == TokenTree::kNone ? 9 : tree.token(tree.first_child(second));
  const DeviceArray<TokenId> tokens = upload(argmax);
  device.target = {};
  device.argmax = tokens.data();
  for (const DeviceRule rule : {DeviceRule::kGreedy, DeviceRule::kNaive, DeviceRule::kMultiStep}) {
    const DeviceVerdict verdict = judge(rule, {device}, 50)[0];
    EXPECT_NO_THROW(check_verdict(verdict));
    EXPECT_EQ(paths_[1], second);
    EXPECT_EQ(verdict.next, argmax[paths_[verdict.accepted]]);
  }
  argmax[second] = -1;
  const DeviceArray<TokenId> broken = upload(argmax);
  device.argmax = broken.data();
  EXPECT_THROW(check_verdict(judge(DeviceRule::kGreedy, {device}, 50)[0]), Error);
}

TEST_P(VerifyTreeTest, ManyThreadsDecideAsFew) {
  constexpr int kVocab = 70'001;  // more blocks than are summed at a time, and a tail
  std::vector<Case> cases;
  std::vector<VerifyCase> device;
  for (std::uint64_t seed = 1; seed <= 2; ++seed) {
    cases.push_back(random_case(DraftLaw::kWithoutReplacement, false, kVocab, seed));
    device.push_back(upload_case(cases.back(), true));
  }
  const auto rule = acceptance_policies().create("multi_step");
  for (const int threads : {96, kVerifyThreads}) {
    const auto got = judge(DeviceRule::kMultiStep, device, kVocab, threads);
    for (std::size_t i = 0; i < cases.size(); ++i) {
      Verdict expected;
      rule->judge(cases[i].draft, cases[i].target, cases[i].uniforms, expected);
      EXPECT_EQ(got[i].next, expected.next) << threads << " threads, case " << i;
      EXPECT_EQ(got[i].accepted, static_cast<int>(expected.accepted.size())) << threads << " threads, case " << i;
    }
  }
}

// As on the CPU, with the node; and the device goes on to judge the next case.
TEST_P(VerifyTreeTest, RefusesRowsThatAreNoDistributions) {
  for (const float wrong : {NAN, -0.25F, 3.0F}) {
    Case broken = random_case(DraftLaw::kIid, true, 50, 2);
    broken.target.dense(0)[7] = wrong;
    Case sound = random_case(DraftLaw::kIid, true, 50, 2);
    const auto got = judge(DeviceRule::kToken, {upload_case(broken, false), upload_case(sound, false)}, 50);
    EXPECT_EQ(got[0].problem, VerifyProblem::kTargetRow) << wrong;
    EXPECT_EQ(got[0].node, 0) << wrong;
    EXPECT_THROW(check_verdict(got[0]), Error);
    EXPECT_NO_THROW(check_verdict(got[1]));
  }
  Case impossible = random_case(DraftLaw::kIid, true, 50, 2);
  ASSERT_FALSE(impossible.draft.row(1).is_point());
  const auto row = impossible.draft.rows.dense(impossible.draft.row_of[1]);
  float& own = row[impossible.draft.tree.token(1)];
  float& other = row[(impossible.draft.tree.token(1) + 1) % 50];
  other += own;
  own = 0.0F;
  EXPECT_EQ(judge(DeviceRule::kToken, {upload_case(impossible, false)}, 50)[0].problem, VerifyProblem::kDraftToken);
}

SPECMOE_DEVICE_TESTS(VerifyTreeTest);

}  // namespace
}  // namespace specmoe::cuda
