#pragma once

#include <cstdint>

namespace specmoe {

using TokenId = std::int32_t;
using NodeId = std::int32_t;

}  // namespace specmoe
