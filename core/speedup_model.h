#pragma once

#include <span>
#include <utility>

#include "core/cost_model.h"
#include "core/metrics.h"
#include "core/trace.h"

namespace specmoe {

/// What is expected of a method before it runs.
///
/// cost  r(T): time of its target passes over that of as many plain ones
struct Prediction {
  double tau = 0;
  double cost = 0;
  double speedup = 0;
};

/// Explains the speed-ups of one target and drafter on one kind of text, and predicts those of trees that were not run:
///
///     speed-up = tau * plain step / (target pass + drafting + rest)
///
/// Four numbers and the routing correlation are fitted to counts of plain decoding and of a few methods: the time of a
/// byte and of an operation of a target pass, the time of a level of the draft and of a node in it. What a pass reads
/// follows from the distinct experts that its rows are expected to wake.
class SpeedupModel {
 public:
  /// probes  of speculative methods, with the batch of `plain`
  /// Throws Error without probes, or where one has no step.
  SpeedupModel(const ModelInfo& target, const Counts& plain, std::span<const Counts> probes);

  /// NaN for a dense target.
  double routing_correlation() const { return correlation_; }
  /// Seconds of plain decoding for a token.
  double plain_seconds() const { return plain_seconds_; }
  /// Seconds of the target pass of a step that drafts `nodes` tokens; in a batch, a sequence's share of it. A plain
  /// pass is measured and not fitted: kernels do otherwise with a single row.
  double pass_seconds(double nodes) const;
  /// The same over a plain pass.
  double cost_ratio(double nodes) const { return pass_seconds(nodes) / plain_pass_seconds_; }
  /// Seconds of a plain pass, measured.
  double plain_pass_seconds() const { return plain_pass_seconds_; }
  /// Seconds to draft `nodes` tokens in `levels` passes of the drafter.
  double draft_seconds(double nodes, double levels) const;
  /// Of steps that draft `nodes` tokens in `levels` levels and emit tau in the mean.
  Prediction predict(double tau, double nodes, double levels) const;
  /// Of steps that are known, as those of Engine::replay() are: a pass for each that its own tree takes, and
  /// `draft_seconds` in the mean.
  Prediction predict(std::span<const RequestRecord> texts, double draft_seconds) const;

 private:
  PassWork work_of(double rows) const;
  Prediction expect(double tau, double pass_seconds, double draft_seconds) const;

  ModelInfo target_;
  double sequences_;  // of a pass
  double correlation_;
  double plain_seconds_;       // for a token
  double plain_pass_seconds_;  // of a step, a sequence's share
  double rest_seconds_;        // of a step: judging, bookkeeping
  double byte_seconds_, operation_seconds_;
  double level_seconds_, node_seconds_;
};

/// Means over steps: nodes of the draft, and how deep it is.
double drafted_nodes(const Counts& counts);
double drafted_levels(const Counts& counts);

/// Tokens that a step of chain(gamma) emits in the mean, the extra one included, on texts that chain(written_by) wrote:
/// its steps tell of each token whether the drafter proposes it after the text so far. Exact for greedy decoding, but
/// that nothing is known of the extra token of a step that accepted all `written_by`; it is taken for one more.
double chain_tokens(std::span<const RequestRecord> texts, int written_by, int gamma);

/// a and b that bring a x + b y nearest to z over all samples, by relative errors; neither below 0.
struct ShareSample {
  double x, y, z;
};
std::pair<double, double> fit_shares(std::span<const ShareSample> samples);

}  // namespace specmoe
