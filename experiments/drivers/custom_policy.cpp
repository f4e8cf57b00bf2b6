// A policy and a tree of one's own: proved on small models, then at work on a checkpoint.
//
//   custom_policy TARGET_FOLDER DRAFTER_FOLDER

#include <cstdio>
#include <exception>
#include <memory>

#include "core/acceptance.h"
#include "core/decide.h"
#include "core/engine.h"
#include "core/metrics.h"
#include "core/nn/model_loader.h"
#include "core/nn/tokenizer.h"
#include "core/prover.h"
#include "tree/topology.h"

namespace {

using namespace specmoe;

/// Draws from the target and keeps the token while the tree holds it, but at most `most` tokens of a path. Lossless:
/// stopping after a token that the target drew changes nothing about it.
class Cautious final : public PolicyOf<Cautious> {
 public:
  explicit Cautious(Params& params) : most_(params.integer("most", 2, "most draft tokens kept per step")) {}
  LawSet lossless_laws() const override {
    return {DraftLaw::kDeterministic, DraftLaw::kIid, DraftLaw::kWithoutReplacement};
  }
  bool judges_trees() const override { return true; }

  template <class Real>
  void decide(Draft<Real>& draft, ProbRows<Real>& target, UniformSource<Wide<Real>>& uniforms, Verdict& verdict) const {
    check_draft(draft, target);
    verdict.accepted.clear();
    for (NodeId node = TokenTree::kRoot;;) {
      const ProbRow<Real> row = target.row(node);
      check_row(row, "target row", node);
      const TokenId token = draw_from_row(row, Taken{}, uniforms.at({node, Purpose::kNext}));
      NodeId child = draft.tree.first_child(node);
      while (child != TokenTree::kNone && draft.tree.token(child) != token) child = draft.tree.next_sibling(child);
      if (child == TokenTree::kNone || static_cast<std::int64_t>(verdict.accepted.size()) == most_) {
        verdict.next = token;
        return;
      }
      verdict.accepted.push_back(child);
      node = child;
    }
  }

 private:
  std::int64_t most_;
};
SPECMOE_REGISTER(acceptance_policies(), "cautious", Cautious, "samples the target, keeps a few tokens the tree holds");

/// As many children at the root as the tree is deep, and one fewer at each level.
class Wedge final : public TopologyOf<Wedge> {
 public:
  explicit Wedge(Params& params) : depth_(params.integer("depth", 3, "levels")) {}
  DraftLaw law() const override { return DraftLaw::kWithoutReplacement; }
  int max_nodes() const override {
    int level = 1, nodes = 1;
    for (int width = depth_; width > 0; --width) nodes += level *= width;
    return nodes;
  }
  int max_depth() const override { return depth_; }
  bool branches() const override { return depth_ > 1; }

  template <class Real>
  void grow(const GrowthView<Real>& view, std::vector<Growth>& growth) const {
    for (NodeId node : view.frontier) {
      const int width = depth_ - view.draft.tree.depth(node);
      if (width > 0) growth.push_back({node, width});
    }
  }

 private:
  int depth_;
};
SPECMOE_REGISTER(tree_policies(), "wedge", Wedge, "fewer children level by level");

void decode(const char* target_folder, const char* drafter_folder) {
  nn::LoadOptions options;
  options.pool = std::make_shared<kernels::ThreadPool>(1);
  const std::string drafter = "independent(path=" + std::string(drafter_folder) + ")";
  Engine engine(nn::load_model(target_folder, options), {drafter, "wedge(depth=3)", "cautious(most=3)"},
                nn::draft_loader(options));
  const auto tokenizer = nn::Tokenizer::from_file(target_folder);
  Request request;
  request.prompt = tokenizer->encode("Problem: Omar has 9 pens and buys 6 more. How many pens does Omar have now?");
  request.sampling.temperature = 0.5;
  request.max_new_tokens = 48;
  const std::vector<RequestRecord> records = engine.generate({&request, 1});
  Counts counts;
  counts.add(records[0]);
  const Metrics metrics = derive(counts, engine.target().info().experts_per_token);
  std::printf("%s\n%.2f tokens per target pass, %.2f distinct experts\n", tokenizer->decode(records[0].tokens).c_str(),
              metrics.tau, metrics.unique_experts);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: custom_policy TARGET_FOLDER DRAFTER_FOLDER\n");
    return 2;
  }
  try {
    const auto policy = acceptance_policies().create("cautious");
    const auto tree = tree_policies().create("wedge(depth=2)");
    const ProofReport proof = prove(*policy, DraftLaw::kWithoutReplacement, *tree, builtin_proof_models());
    std::printf("%s on %s: distance %.1e, %.4f tokens per pass\n", proof.lossless ? "LOSSLESS" : "BIASED",
                proof.models.c_str(), proof.tvd, proof.expected_tokens);
    decode(argv[1], argv[2]);
    return proof.lossless ? 0 : 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "custom_policy: %s\n", error.what());
    return 2;
  }
}
