#include "draft/head_drafter.h"

namespace specmoe {
namespace {

/// The multi-token prediction module that a DeepSeek-V3 checkpoint brings along (arXiv:2412.19437), used again and
/// again for one token after another.
class Mtp final : public HeadDrafter {
 public:
  explicit Mtp(Params& params)
      : HeadDrafter(params.name(), params.required_text("path", "the target's own checkpoint folder")) {}
};

SPECMOE_REGISTER(drafters(), "mtp", Mtp, "the target's own prediction module (DeepSeek-V3)");

}  // namespace
}  // namespace specmoe
