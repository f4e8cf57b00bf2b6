#include "experiments/prove_command.h"

#include <boost/program_options.hpp>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "core/oracle_bounds.h"
#include "core/prover.h"
#include "experiments/interrupt.h"
#include "experiments/proof_matrix.h"
#include "experiments/table.h"

namespace specmoe::cli {
namespace {

namespace po = boost::program_options;

constexpr const char* kHelp = R"(Usage: specmoe prove --accept POLICY [--law LAW] [--tree TREE] [option]...
       specmoe prove --all [--json]

Visits every way of drafting and judging on tiny Markov models, with the real code, and compares what is emitted with
the target's distribution. Exit code 0: lossless (with --all: everything as labelled), 1: not.

Examples:
  specmoe prove --accept multi_step --law iid --tree 'expansion(2,2)'
  specmoe prove --accept 'lenient(lenience=0.5)' --tree 'chain(2)'
  specmoe prove --accept token --tree 'chain(2)' --target target.json --draft draft.json

Options:
  --accept POLICY         acceptance policy
  --law LAW               how children are drawn: deterministic, iid, without_replacement, top_plus_sampled or multi_drafter [iid]
  --tree SPEC             tree topology [expansion(2,2); chain(3) for a policy of chains alone]
  --target FILE.json      the target's rows by last token, such as [[0.5, 0.5], [0.1, 0.9]]; with --draft
  --draft FILE.json       the drafter's rows
  --rounds N              steps that are enumerated, 1 to 4; 2 catches what leaks from one step to the next [1]
  --exact                 compute in exact fractions
  --json                  print JSON
  --all                   every policy, law and small tree, and the wrong rules
)";

po::options_description flags() {
  po::options_description all;
  auto add = all.add_options();
  for (const char* name : {"accept", "tree", "target", "draft"}) add(name, po::value<std::string>());
  add("law", po::value<std::string>()->default_value("iid"))("rounds", po::value<int>()->default_value(1));
  for (const char* name : {"exact", "json", "all"}) add(name, po::bool_switch());
  add("help,h", "");
  return all;
}

std::vector<std::vector<double>> read_rows(const std::string& path) {
  std::ifstream file(path);
  SPECMOE_CHECK(file.good(), "cannot read ", path);
  try {
    return nlohmann::json::parse(file).get<std::vector<std::vector<double>>>();
  } catch (const nlohmann::json::exception& error) {
    fail(path, ": expected rows such as [[0.5, 0.5], [0.1, 0.9]]: ", error.what());
  }
}

std::vector<ProofModels> models_of(const po::variables_map& given) {
  if (given.count("target") == 0 && given.count("draft") == 0) return builtin_proof_models();
  SPECMOE_CHECK(given.count("target") == 1 && given.count("draft") == 1,
                "give --target and --draft together, or neither for the built-in models");
  return {
      given_proof_models(read_rows(given["target"].as<std::string>()), read_rows(given["draft"].as<std::string>()))};
}

nlohmann::json to_json(const ProofReport& report, double bound) {
  nlohmann::json json = {{"models", report.models},
                         {"lossless", report.lossless},
                         {"tvd", report.tvd},
                         {"expected_tokens", report.expected_tokens},
                         {"bound", bound},
                         {"outcomes", report.outcomes},
                         {"law_length", report.length},
                         {"law_expected", report.expected},
                         {"law_emitted", report.emitted}};
  if (report.counter_example) {
    const CounterExample& example = *report.counter_example;
    json["counter_example"] = {{"text", example.text}, {"expected", example.expected}, {"actual", example.actual},
                               {"tree", example.tree}, {"uniforms", example.uniforms}, {"emitted", example.emitted}};
  }
  return json;
}

std::string spell(const std::vector<TokenId>& tokens) {
  std::string text;
  for (TokenId token : tokens) {
    if (!text.empty()) text += ' ';
    text += std::to_string(token);
  }
  return text;
}

void print(const ProofReport& report, double bound) {
  std::cout << (report.lossless ? "LOSSLESS" : "BIASED  ") << "  " << report.models << ": "
            << fixed(report.expected_tokens, 6) << " tokens per target pass (no policy can exceed " << fixed(bound, 6)
            << "), distance " << report.tvd << " over " << report.length << " tokens, " << report.outcomes
            << " outcomes\n";
  if (!report.counter_example) return;
  const CounterExample& example = *report.counter_example;
  std::cout << "  counter-example: the text [" << spell(example.text) << "] has probability "
            << fixed(example.expected, 6) << " under the target and is emitted with " << fixed(example.actual, 6)
            << "\n  one way: drafted tree " << example.tree << " emits [" << spell(example.emitted) << "] where\n";
  for (const std::string& uniform : example.uniforms) std::cout << "    " << uniform << '\n';
}

int prove_one(const po::variables_map& given) {
  SPECMOE_CHECK(given.count("accept") == 1, "prove needs --accept POLICY, or --all; see specmoe prove --help");
  const auto policy = acceptance_policies().create(given["accept"].as<std::string>());
  const auto tree =
      tree_policies().create(given.count("tree") == 1 ? given["tree"].as<std::string>() : default_proof_tree(*policy));
  const DraftLaw law = law_from_name(given["law"].as<std::string>());
  ProofOptions options;
  options.rounds = given["rounds"].as<int>();
  options.exact = given["exact"].as<bool>();
  options.poll = poll_interrupt;
  bool lossless = true;
  nlohmann::json reports = nlohmann::json::array();
  for (const ProofModels& models : models_of(given)) {
    const ProofReport report = prove(*policy, law, *tree, models, options);
    const double bound = oracle_bounds(law, *tree, models).expected_tokens;
    lossless &= report.lossless;
    if (given["json"].as<bool>()) {
      reports.push_back(to_json(report, bound));
    } else {
      print(report, bound);
    }
  }
  if (given["json"].as<bool>()) std::cout << reports.dump(2) << '\n';
  return lossless ? 0 : 1;
}

}  // namespace

int run_prove(const std::vector<std::string>& arguments) {
  po::variables_map given;
  try {
    po::store(po::command_line_parser(arguments).options(flags()).positional({}).run(), given);
    po::notify(given);
  } catch (const po::error& error) {
    fail("prove: ", error.what(), "; see specmoe prove --help");
  }
  if (given.count("help") != 0) {
    std::cout << kHelp;
    return 0;
  }
  if (!given["all"].as<bool>()) return prove_one(given);
  const ProofMatrix matrix = prove_matrix(std::cerr);
  if (given["json"].as<bool>()) {
    std::cout << matrix_json(matrix) << '\n';
  } else {
    print_matrix(matrix, std::cout);
  }
  return matrix.as_labelled() ? 0 : 1;
}

}  // namespace specmoe::cli
