#include "core/nn/gguf_quants.h"

#include <array>
#include <bit>
#include <cstring>

namespace specmoe::nn {
namespace {

constexpr int kSmallBlock = 32;
constexpr int kSuperBlock = 256;

int byte_at(const std::byte* from, int index) { return std::to_integer<int>(from[index]); }
int signed_at(const std::byte* from, int index) { return static_cast<std::int8_t>(byte_at(from, index)); }
int low_half(const std::byte* from, int index) { return byte_at(from, index) & 15; }
int high_half(const std::byte* from, int index) { return byte_at(from, index) >> 4; }

template <class T>
T load(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

/// Exact for every half, subnormal ones too: the exponent is moved by a multiplication.
float half_at(const std::byte* from) {
  const auto bits = load<std::uint16_t>(from);
  const std::uint32_t sign = (bits & 0x8000U) << 16;
  const std::uint32_t magnitude = bits & 0x7fffU;
  if (magnitude >= 0x7c00U) return std::bit_cast<float>(sign | 0x7f800000U | (magnitude & 0x3ffU) << 13);
  const float value = std::bit_cast<float>(magnitude << 13) * 0x1p112F;
  return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(value));
}

void expand_f32(const std::byte* block, float* out) { *out = load<float>(block); }
void expand_f16(const std::byte* block, float* out) { *out = half_at(block); }
void expand_bf16(const std::byte* block, float* out) {
  *out = std::bit_cast<float>(std::uint32_t{load<std::uint16_t>(block)} << 16);
}

/// f16 scale, 16 bytes: low halves are elements 0 to 15, high halves 16 to 31.
void expand_q4_0(const std::byte* block, float* out) {
  const float scale = half_at(block);
  for (int i = 0; i < 16; ++i) {
    out[i] = scale * static_cast<float>(low_half(block + 2, i) - 8);
    out[i + 16] = scale * static_cast<float>(high_half(block + 2, i) - 8);
  }
}

/// f16 scale, f16 minimum, 16 bytes as Q4_0.
void expand_q4_1(const std::byte* block, float* out) {
  const float scale = half_at(block);
  const float low = half_at(block + 2);
  for (int i = 0; i < 16; ++i) {
    out[i] = scale * static_cast<float>(low_half(block + 4, i)) + low;
    out[i + 16] = scale * static_cast<float>(high_half(block + 4, i)) + low;
  }
}

/// A fifth bit for each of 32 elements.
int fifth_bit(std::uint32_t bits, int index) { return static_cast<int>(bits >> index & 1U) << 4; }

/// f16 scale, 32 fifth bits, 16 bytes as Q4_0.
void expand_q5_0(const std::byte* block, float* out) {
  const float scale = half_at(block);
  const auto bits = load<std::uint32_t>(block + 2);
  for (int i = 0; i < 16; ++i) {
    out[i] = scale * static_cast<float>((low_half(block + 6, i) | fifth_bit(bits, i)) - 16);
    out[i + 16] = scale * static_cast<float>((high_half(block + 6, i) | fifth_bit(bits, i + 16)) - 16);
  }
}

/// f16 scale, f16 minimum, 32 fifth bits, 16 bytes as Q4_0.
void expand_q5_1(const std::byte* block, float* out) {
  const float scale = half_at(block);
  const float low = half_at(block + 2);
  const auto bits = load<std::uint32_t>(block + 4);
  for (int i = 0; i < 16; ++i) {
    out[i] = scale * static_cast<float>(low_half(block + 8, i) | fifth_bit(bits, i)) + low;
    out[i + 16] = scale * static_cast<float>(high_half(block + 8, i) | fifth_bit(bits, i + 16)) + low;
  }
}

/// f16 scale, 32 signed bytes.
void expand_q8_0(const std::byte* block, float* out) {
  const float scale = half_at(block);
  for (int i = 0; i < kSmallBlock; ++i) out[i] = static_cast<float>(signed_at(block + 2, i)) * scale;
}

/// Six-bit scales and minima of eight parts of 32, packed into 12 bytes.
struct PartScale {
  int scale = 0;
  int low = 0;
};
PartScale part_scale(const std::byte* packed, int part) {
  if (part < 4) return {byte_at(packed, part) & 63, byte_at(packed, part + 4) & 63};
  return {low_half(packed, part + 4) | byte_at(packed, part - 4) >> 6 << 4,
          high_half(packed, part + 4) | byte_at(packed, part) >> 6 << 4};
}

/// f16 scale of scales, f16 scale of minima, 12 bytes of them, [32 bytes of fifth bits,] 128 bytes: the low halves of
/// each 32 are one part, the high halves the next.
template <bool kFiveBits>
void expand_k4_or_k5(const std::byte* block, float* out) {
  const float scale_unit = half_at(block);
  const float low_unit = half_at(block + 2);
  const std::byte* scales = block + 4;
  const std::byte* bits = block + 16;
  const std::byte* values = kFiveBits ? bits + 32 : bits;
  for (int part = 0; part < 8; ++part) {
    const PartScale packed = part_scale(scales, part);
    const float scale = scale_unit * static_cast<float>(packed.scale);
    const float low = low_unit * static_cast<float>(packed.low);
    const std::byte* from = values + 32 * (part / 2);
    for (int i = 0; i < 32; ++i) {
      int value = part % 2 == 0 ? low_half(from, i) : high_half(from, i);
      if (kFiveBits) value |= (byte_at(bits, i) >> part & 1) << 4;
      out[32 * part + i] = scale * static_cast<float>(value) - low;
    }
  }
}

/// 128 bytes of low four bits, 64 of high two bits, 16 signed scales, f16 scale of scales; two halves of 128 elements,
/// each four parts of 32.
void expand_q6_k(const std::byte* block, float* out) {
  const float unit = half_at(block + 208);
  for (int part = 0; part < 8; ++part) {
    const std::byte* low = block + 64 * (part / 4) + 32 * (part % 2);
    const std::byte* high = block + 128 + 32 * (part / 4);
    for (int i = 0; i < 32; ++i) {
      const int four = part % 4 < 2 ? low_half(low, i) : high_half(low, i);
      const int two = byte_at(high, i) >> (2 * (part % 4)) & 3;
      const float scale = unit * static_cast<float>(signed_at(block + 192, 2 * part + i / 16));
      out[32 * part + i] = scale * static_cast<float>((four | two << 4) - 32);
    }
  }
}

/// A power of two, 16 bytes as Q4_0. Elements are e2m1 floats, doubled here, so the power is halved.
void expand_mxfp4(const std::byte* block, float* out) {
  static constexpr std::array<float, 16> kDoubled = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
  const auto exponent = static_cast<std::uint32_t>(byte_at(block, 0));
  const float scale = std::bit_cast<float>(exponent < 2 ? 0x00200000U << exponent : (exponent - 1) << 23);
  for (int i = 0; i < 16; ++i) {
    out[i] = scale * kDoubled[static_cast<std::size_t>(low_half(block + 1, i))];
    out[i + 16] = scale * kDoubled[static_cast<std::size_t>(high_half(block + 1, i))];
  }
}

constexpr std::array kTypes = {
    GgmlType{0, "F32", 1, 4, expand_f32},
    GgmlType{1, "F16", 1, 2, expand_f16},
    GgmlType{30, "BF16", 1, 2, expand_bf16},
    GgmlType{8, "Q8_0", kSmallBlock, 34, expand_q8_0},
    GgmlType{2, "Q4_0", kSmallBlock, 18, expand_q4_0},
    GgmlType{3, "Q4_1", kSmallBlock, 20, expand_q4_1},
    GgmlType{6, "Q5_0", kSmallBlock, 22, expand_q5_0},
    GgmlType{7, "Q5_1", kSmallBlock, 24, expand_q5_1},
    GgmlType{12, "Q4_K", kSuperBlock, 144, expand_k4_or_k5<false>},
    GgmlType{13, "Q5_K", kSuperBlock, 176, expand_k4_or_k5<true>},
    GgmlType{14, "Q6_K", kSuperBlock, 210, expand_q6_k},
    GgmlType{39, "MXFP4", kSmallBlock, 17, expand_mxfp4},
};

struct NamedId {
  std::uint32_t id;
  const char* name;
};
constexpr std::array kUnsupported = {
    NamedId{9, "Q8_1"},    NamedId{10, "Q2_K"},    NamedId{11, "Q3_K"},  NamedId{15, "Q8_K"},   NamedId{16, "IQ2_XXS"},
    NamedId{17, "IQ2_XS"}, NamedId{18, "IQ3_XXS"}, NamedId{19, "IQ1_S"}, NamedId{20, "IQ4_NL"}, NamedId{21, "IQ3_S"},
    NamedId{22, "IQ2_S"},  NamedId{23, "IQ4_XS"},  NamedId{24, "I8"},    NamedId{25, "I16"},    NamedId{26, "I32"},
    NamedId{27, "I64"},    NamedId{28, "F64"},     NamedId{29, "IQ1_M"}, NamedId{34, "TQ1_0"},  NamedId{35, "TQ2_0"},
    NamedId{40, "NVFP4"},  NamedId{41, "Q1_0"},
};

}  // namespace

const GgmlType* find_ggml_type(std::uint32_t id) {
  for (const GgmlType& type : kTypes) {
    if (type.id == id) return &type;
  }
  return nullptr;
}

std::string ggml_type_names() {
  std::string names;
  for (const GgmlType& type : kTypes) names += (names.empty() ? "" : ", ") + std::string(type.name);
  return names;
}

std::string describe_ggml_type(std::uint32_t id) {
  std::string name = "unknown";
  if (const GgmlType* type = find_ggml_type(id)) name = type->name;
  for (const NamedId& known : kUnsupported) {
    if (known.id == id) name = known.name;
  }
  return name + " (" + std::to_string(id) + ")";
}

void expand_row(const GgmlType& type, const std::byte* row, std::int64_t cols, float* out) {
  for (std::int64_t col = 0; col < cols; col += type.block, row += type.block_bytes) type.expand(row, out + col);
}

}  // namespace specmoe::nn
