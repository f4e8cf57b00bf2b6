#pragma once

// Shared by every instruction set: see kernels/cpu/avx2.cpp.

namespace specmoe::kernels::SPECMOE_SIMD {

inline constexpr int kPanel = static_cast<int>(PackedMatrix::kPanel);
inline constexpr int kMostPanels = 8;  // multiplied together
inline constexpr int kGroupOutputs = kMostPanels * kPanel;

/// How many panels of `weight` are multiplied together: four streams from memory, and eight where panels are so short
/// that the start of each product costs more.
inline int group_panels(const PackedMatrix& weight) { return weight.panel_bytes() <= 4096 ? kMostPanels : 4; }

}  // namespace specmoe::kernels::SPECMOE_SIMD
