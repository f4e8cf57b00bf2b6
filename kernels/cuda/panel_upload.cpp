#include "kernels/cuda/panel_upload.h"

#include <algorithm>

namespace specmoe::kernels::cuda {

void PanelUpload::put(const PackedMatrix& matrix, std::byte* out) {
  const auto packed_bytes = static_cast<std::int64_t>(matrix.panel_bytes());
  const std::int64_t ordered_bytes = device_panel_bytes(matrix.cols(), matrix.dtype());
  const std::int64_t together = std::max<std::int64_t>(1, static_cast<std::int64_t>(bytes_) / packed_bytes);
  const std::size_t most = static_cast<std::size_t>(together * packed_bytes);
  if (staged_.size() < most) staged_ = DeviceArray<std::byte>(most, stream_.device());
  const OrderedPanels panels = {reinterpret_cast<const std::uint32_t*>(staged_.data()), packed_bytes / 64,
                                ordered_bytes / kTileBytes, matrix.dtype()};
  for (std::int64_t first = 0; first < matrix.panels(); first += together) {
    const std::int64_t count = std::min(together, matrix.panels() - first);
    stream_.copy(staged_.data(), matrix.panel(first), static_cast<std::size_t>(count * packed_bytes));
    order_words(panels, count * ordered_bytes / 4, reinterpret_cast<std::uint32_t*>(out + first * ordered_bytes),
                stream_);
  }
  stream_.synchronize();
}

}  // namespace specmoe::kernels::cuda
