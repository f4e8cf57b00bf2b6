#pragma once

#include <string>

namespace specmoe {

/// Where a result comes from, besides its settings.
struct Provenance {
  std::string commit;  // of the checkout the library lies in; "-dirty" when it has changes, "unknown" without one
  std::string compiler;
  std::string cpu;      // the processor's own name
  int cores = 0;        // usable by this process
  std::string started;  // UTC, ISO 8601
};

/// Of this build, this machine and this moment. Asks git, so call it outside of measurements.
Provenance collect_provenance();

}  // namespace specmoe
