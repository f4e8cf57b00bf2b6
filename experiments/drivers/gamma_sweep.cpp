// How long should the draft be? One line per chain length: tokens per pass, cost of a pass, speed.
//
//   gamma_sweep TARGET_FOLDER DRAFTER_FOLDER [LONGEST]

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <vector>

#include "core/engine.h"
#include "core/metrics.h"
#include "core/nn/model_loader.h"
#include "core/nn/tokenizer.h"

namespace {

using namespace specmoe;

Counts run(Engine& engine, const std::vector<Request>& requests) {
  Counts counts;
  for (const RequestRecord& record : engine.generate(requests)) counts.add(record);
  counts.check_identities();
  return counts;
}

void sweep(const std::string& target_folder, const std::string& drafter_folder, int longest) {
  nn::LoadOptions options;
  options.pool = std::make_shared<kernels::ThreadPool>(1);  // the bundled pair is too small for two
  const auto target = nn::load_model(target_folder, options);
  const auto tokenizer = nn::Tokenizer::from_file(target_folder);
  std::vector<Request> requests;
  for (const char* text :
       {"Problem: Ada has 3 apples and buys 5 more.", "Problem: Theo reads 6 pages a day for 4 days."}) {
    Request request;
    request.prompt = tokenizer->encode(text);
    request.max_new_tokens = 64;
    requests.push_back(request);
  }
  std::printf("gamma  tokens/s  tokens per pass  acceptance  distinct experts\n");
  for (int gamma = 0; gamma <= longest; ++gamma) {
    EngineSpec spec;  // gamma 0: plain decoding
    if (gamma > 0) spec = {"independent(path=" + drafter_folder + ")", "chain(gamma=" + std::to_string(gamma) + ")"};
    Engine engine(target, spec, nn::draft_loader(options));
    const Metrics metrics = derive(run(engine, requests), target->info().experts_per_token);
    std::printf("%5d  %8.0f  %15.2f  %10.2f  %16.2f\n", gamma, metrics.tokens_per_s, metrics.tau,
                metrics.acceptance_rate, metrics.unique_experts);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: gamma_sweep TARGET_FOLDER DRAFTER_FOLDER [LONGEST]\n");
    return 2;
  }
  try {
    sweep(argv[1], argv[2], argc > 3 ? std::atoi(argv[3]) : 8);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "gamma_sweep: %s\n", error.what());
    return 2;
  }
}
