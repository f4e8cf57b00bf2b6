#pragma once

// The AMX tiles: see kernels/cpu/amx.cpp. `Tiles` are the eight tile registers, of the processor or emulated. Comes
// after a header with widen_int8_line().

namespace specmoe::kernels::SPECMOE_SIMD {

inline constexpr int kTileRows = 16;
constexpr int tile_panels(int /*rows*/) { return 4; }
inline constexpr int kTilePairs = 16;     // rows of a weight tile: one pair of inputs for each output of a panel
inline constexpr std::size_t kLine = 64;  // bytes of such a row

/// Bytes of a row as it is packed.
template <DType kType>
inline constexpr std::size_t kPackedLine = kType == DType::kInt8 ? kLine / 2 : kLine;

/// Loads `lines` rows of a weight tile. int8 becomes bfloat16, which holds it exactly, on the way through `wide`.
template <DType kType, int kTile>
void load_weights(const std::byte* from, int lines, std::byte* wide) {
  if constexpr (kType == DType::kInt8) {
    for (int line = 0; line < lines; ++line) widen_int8_line(from + line * kPackedLine<kType>, wide + line * kLine);
    from = wide;
  }
  Tiles::load<kTile>(from, kLine);
}

/// Adds to tiles 0 .. P - 1 the products of input rows with P panels, over ascending k; what K leaves over takes tiles
/// 6 and 7, which are configured for it, so then one tile alone holds weights.
template <DType kType, int P, bool kTail>
void tile(PairRows rows, const std::byte* panel, const std::byte* ahead, std::size_t panel_bytes, std::int64_t pairs,
          float* sums) {
  const auto each_panel = [](const auto& visit) {
    visit.template operator()<0>();
    if constexpr (P > 1) visit.template operator()<1>();
    if constexpr (P > 2) visit.template operator()<2>();
    if constexpr (P > 3) visit.template operator()<3>();
  };
  constexpr std::size_t kTileBytes = kTilePairs * kPackedLine<kType>;
  alignas(kLine) std::byte wide[kType == DType::kInt8 ? kTilePairs * kLine : 1];
  const auto input_stride = static_cast<std::size_t>(rows.stride) * sizeof(std::uint32_t);
  each_panel([]<int kOutput>() { Tiles::zero<kOutput>(); });
  std::int64_t k = 0;
  for (; k + kTilePairs <= pairs; k += kTilePairs, panel += kTileBytes, ahead += kTileBytes) {
    Tiles::load<4>(rows.data + k, input_stride);
    each_panel([&]<int kOutput>() {
      constexpr int kWeights = kTail ? 5 : 5 + kOutput % 3;
      for (std::size_t i = 0; i < kTileBytes; i += kLine) prefetch(ahead + kOutput * panel_bytes + i);
      load_weights<kType, kWeights>(panel + kOutput * panel_bytes, kTilePairs, wide);
      Tiles::multiply<kOutput, 4, kWeights>();
    });
  }
  if constexpr (kTail) {
    Tiles::load<6>(rows.data + k, input_stride);
    each_panel([&]<int kOutput>() {
      load_weights<kType, 7>(panel + kOutput * panel_bytes, static_cast<int>(pairs - k), wide);
      Tiles::multiply<kOutput, 6, 7>();
    });
  }
  each_panel([&]<int kOutput>() { Tiles::store<kOutput>(sums + kOutput * kPanel, kGroupOutputs * sizeof(float)); });
}

/// What the tiles of `rows` input rows and `pairs` pairs of inputs are configured to: 64 bytes, as the processor takes.
struct TileShape {
  std::uint8_t palette = 1;
  std::uint8_t start_row = 0;
  std::uint8_t reserved[14] = {};
  std::uint16_t row_bytes[16] = {};
  std::uint8_t rows[16] = {};

  TileShape(int input_rows, std::int64_t pairs) {
    const auto tail = static_cast<int>(pairs % kTilePairs);
    const auto shape = [this](int tile, int tile_rows, int bytes) {
      rows[tile] = static_cast<std::uint8_t>(tile_rows);
      row_bytes[tile] = static_cast<std::uint16_t>(bytes);
    };
    for (int output = 0; output < 4; ++output) shape(output, input_rows, 64);
    shape(4, input_rows, 64);
    for (int weights = 5; weights < 8; ++weights) shape(weights, kTilePairs, 64);
    if (tail == 0) return;
    shape(6, input_rows, 4 * tail);
    shape(7, tail, 64);
  }
};
static_assert(sizeof(TileShape) == 64);

template <DType kType>
auto choose_tile(int panels, bool tail) {
  if (panels == 4) return tail ? tile<kType, 4, true> : tile<kType, 4, false>;
  if (panels == 2) return tail ? tile<kType, 2, true> : tile<kType, 2, false>;
  return tail ? tile<kType, 1, true> : tile<kType, 1, false>;
}

/// Multiplies up to kTileRows rows with the panels of one group.
inline void multiply_group(PairRows rows, int count, const PackedMatrix& weight, std::int64_t panel, int panels,
                           const std::byte* ahead, int /*turn*/, int /*turns*/, float* sums) {
  const bool int8 = weight.dtype() == DType::kInt8;
  const std::int64_t pairs = (weight.cols() + 1) / 2;
  const bool tail = pairs % kTilePairs != 0;
  const Tiles::Configured configured(TileShape(count, pairs));
  for (int p = 0; p < panels;) {
    const int step = std::min(4, static_cast<int>(std::bit_floor(static_cast<unsigned>(panels - p))));
    const std::size_t offset = static_cast<std::size_t>(p) * weight.panel_bytes();
    const auto run = int8 ? choose_tile<DType::kInt8>(step, tail) : choose_tile<DType::kBFloat16>(step, tail);
    run(rows, weight.panel(panel) + offset, ahead + offset, weight.panel_bytes(), pairs, sums + p * kPanel);
    p += step;
  }
  if (!int8) return;
  for (int p = 0; p < panels; ++p) {
    const auto* scales = reinterpret_cast<const float*>(weight.panel(panel + p) + pairs * kPackedLine<DType::kInt8>);
    for (int r = 0; r < count; ++r) {
      float* to = sums + r * kGroupOutputs + p * kPanel;
      for (int v = 0; v < kPanel; v += kWidth) store(to + v, mul(load(to + v), load(scales + v)));
    }
  }
}

}  // namespace specmoe::kernels::SPECMOE_SIMD
