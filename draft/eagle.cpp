#include "draft/head_drafter.h"

namespace specmoe {
namespace {

/// A head trained for a target: EAGLE (Li et al. 2024, arXiv:2401.15077) or EAGLE-3 (arXiv:2503.01840). EAGLE-2
/// (arXiv:2406.16858) is a head of EAGLE with the topology `confidence`.
class Eagle final : public HeadDrafter {
 public:
  explicit Eagle(Params& params)
      : HeadDrafter(params.name(), params.required_text("path", "checkpoint folder of the draft head")) {}
};

SPECMOE_REGISTER(drafters(), "eagle", Eagle, "a head on the target's hidden rows (EAGLE, EAGLE-3)");

}  // namespace
}  // namespace specmoe
