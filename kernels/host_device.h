#pragma once

/// Marks what the CPU and a device compute with one and the same code.
#ifdef __CUDACC__
#define SPECMOE_HD __host__ __device__
#else
#define SPECMOE_HD
#endif
