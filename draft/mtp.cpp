#include "draft/head_drafter.h"

namespace specmoe {
namespace {

/// The multi-token prediction module that checkpoints of DeepSeek-V3 (arXiv:2412.19437) and GLM-4.5 bring along, used
/// again and again for one token after another.
class Mtp final : public HeadDrafter {
 public:
  explicit Mtp(Params& params)
      : HeadDrafter(params.name(), params.required_text("path", "the target's own checkpoint folder")) {}
};

SPECMOE_REGISTER(drafters(), "mtp", Mtp, "the target's own prediction module (DeepSeek-V3, GLM-4.5)");

}  // namespace
}  // namespace specmoe
