#include <cmath>
#include <map>

#include "core/nn/model_family.h"
#include "kernels/check.h"

namespace specmoe::nn {

namespace {

RopeKind rope_kind(const std::string& name, const std::string& where) {
  static const std::map<std::string, RopeKind> kinds = {
      {"default", RopeKind::kDefault}, {"linear", RopeKind::kLinear}, {"dynamic", RopeKind::kDynamic},
      {"llama3", RopeKind::kLlama3},   {"yarn", RopeKind::kYarn},     {"longrope", RopeKind::kLongrope}};
  const auto found = kinds.find(name);
  SPECMOE_CHECK(found != kinds.end(), where, " '", name,
                "' is not supported; known: default, linear, dynamic, llama3, yarn, longrope");
  return found->second;
}

double number_or(const ConfigReader& rope, const std::string& key, double absent, double low) {
  return rope.has(key) ? rope.number(key, absent, low) : absent;
}

/// Elements of a head of `dim` that turn. A factor inside the rope object wins over one beside it.
int parse_rotary_dim(const ConfigReader& config, const std::optional<ConfigReader>& rope, int dim,
                     std::optional<double> partial) {
  const char* key = "partial_rotary_factor";
  const ConfigReader& holder = rope && rope->has(key) ? *rope : config;
  if (!partial) {
    SPECMOE_CHECK(number_or(holder, key, 1.0, 0.0) == 1.0, holder.where(key),
                  " other than 1 is not supported for this model_type");
    return dim;
  }
  const double factor = number_or(holder, key, *partial, 0.0);
  const int turning = factor <= 1.0 ? static_cast<int>(dim * factor) : 0;
  SPECMOE_CHECK(turning > 0 && turning % 2 == 0, holder.where(key), " = ", factor,
                " must make an even number of a head's ", dim, " elements turn");
  return turning;
}

void parse_yarn(const ConfigReader& rope, RopeSpec& spec) {
  // Zero stands for "take the default" here, as in transformers.
  const auto or_default = [&](const char* key, double absent) {
    const double value = number_or(rope, key, absent, -1.0);
    return value == 0.0 ? absent : value;
  };
  spec.beta_fast = or_default("beta_fast", 32.0);
  spec.beta_slow = or_default("beta_slow", 1.0);
  SPECMOE_CHECK(spec.beta_fast > 0.0 && spec.beta_slow > 0.0, rope.where("beta_fast"),
                " and beta_slow must be above 0");
  spec.truncate = rope.boolean("truncate", true);
  const double mscale = number_or(rope, "mscale", 0.0, -1e30);
  const double mscale_all_dim = number_or(rope, "mscale_all_dim", 0.0, -1e30);
  if (rope.has("attention_factor")) {
    spec.attention_factor = rope.number("attention_factor", 1.0, 0.0);
  } else if (mscale != 0.0 && mscale_all_dim != 0.0) {
    spec.attention_factor = yarn_sharpness(spec.factor, mscale) / yarn_sharpness(spec.factor, mscale_all_dim);
  } else {
    spec.attention_factor = yarn_sharpness(spec.factor, 1.0);
  }
  SPECMOE_CHECK(std::isfinite(spec.attention_factor), rope.where("mscale_all_dim"), " gives no finite factor");
}

/// LongRoPE (Ding et al. 2024, arXiv:2402.13753): a divisor for each frequency, one list for short texts and one for
/// long ones.
void parse_longrope(const ConfigReader& rope, RopeSpec& spec) {
  const auto factors = [&](const char* key) {
    const auto list = rope.numbers(key);
    SPECMOE_CHECK(list, rope.where(key), " is missing, and rope_type longrope needs it");
    const auto pairs = static_cast<std::size_t>(spec.rotary_dim / 2);
    SPECMOE_CHECK(list->size() == pairs, rope.where(key), " must have ", pairs, " numbers, got ", list->size());
    for (const double factor : *list) SPECMOE_CHECK(factor > 0.0, rope.where(key), " must be above 0, got ", factor);
    return *list;
  };
  spec.short_factors = factors("short_factor");
  spec.long_factors = factors("long_factor");
  if (rope.has("attention_factor")) {
    spec.attention_factor = rope.number("attention_factor", 1.0, 0.0);
  } else if (spec.factor > 1.0) {
    SPECMOE_CHECK(spec.original_positions > 1.0, rope.where("original_max_position_embeddings"),
                  " must be above 1, got ", spec.original_positions);
    spec.attention_factor = std::sqrt(1.0 + std::log(spec.factor) / std::log(spec.original_positions));
  }
  spec.long_attention_factor = spec.attention_factor;
}

/// What the scaled kinds need beyond theta. A context before the stretch that stands beside the rope object wins over
/// one inside it; with neither, it is the context itself.
void parse_scaling(const ConfigReader& config, const ConfigReader& rope, int max_positions, RopeSpec& spec) {
  const ConfigReader& holder = config.has("original_max_position_embeddings") ? config : rope;
  spec.original_positions = number_or(holder, "original_max_position_embeddings", max_positions, 0.0);
  if ((spec.kind == RopeKind::kYarn || spec.kind == RopeKind::kLongrope) && !rope.has("factor")) {
    spec.factor = max_positions / spec.original_positions;
  } else {
    SPECMOE_CHECK(rope.has("factor"), rope.where("factor"), " is missing, and this rope_type needs it");
    spec.factor = rope.number("factor", 1.0, 0.0);
  }
  if (spec.kind == RopeKind::kYarn) parse_yarn(rope, spec);
  if (spec.kind == RopeKind::kLongrope) parse_longrope(rope, spec);
  if (spec.kind != RopeKind::kLlama3) return;
  for (const char* key : {"low_freq_factor", "high_freq_factor"}) {
    SPECMOE_CHECK(rope.has(key), rope.where(key), " is missing, and rope_type llama3 needs it");
  }
  spec.low_frequency_factor = rope.number("low_freq_factor", 1.0, 0.0);
  spec.high_frequency_factor = rope.number("high_freq_factor", 4.0, 0.0);
}

}  // namespace

double yarn_sharpness(double stretch, double weight) {
  return stretch <= 1.0 ? 1.0 : 0.1 * weight * std::log(stretch) + 1.0;
}

std::optional<ConfigReader> rope_object(const ConfigReader& config) {
  const auto scaling = config.object("rope_scaling");
  return scaling ? scaling : config.object("rope_parameters");
}

RopeSpec parse_rope_object(const ConfigReader& config, const std::optional<ConfigReader>& rope, int dim,
                           int max_positions, double theta, std::optional<double> partial) {
  RopeSpec spec;
  spec.rotary_dim = parse_rotary_dim(config, rope, dim, partial);
  spec.theta = rope ? number_or(*rope, "rope_theta", theta, 0.0) : theta;
  if (!rope) return spec;
  const std::string key = rope->has("rope_type") || !rope->has("type") ? "rope_type" : "type";
  spec.kind = rope_kind(rope->text(key, "default"), rope->where(key));
  if (spec.kind != RopeKind::kDefault) parse_scaling(config, *rope, max_positions, spec);
  return spec;
}

RopeSpec parse_rope(const ConfigReader& config, int dim, int max_positions, double default_theta,
                    std::optional<double> partial) {
  const double theta = number_or(config, "rope_theta", default_theta, 0.0);
  return parse_rope_object(config, rope_object(config), dim, max_positions, theta, partial);
}

}  // namespace specmoe::nn
