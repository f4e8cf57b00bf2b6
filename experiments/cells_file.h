#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "experiments/progress.h"

namespace specmoe::cli {

/// A growing file of measured cells, one JSON line each: a run that was interrupted goes on where it stopped.
///
/// A line is written with one call and synced before append() returns, so after a crash the file holds whole lines and
/// at most one half-written last one, which is dropped, with a message, when the file is opened again. One process at a
/// time may have it open.
class CellsFile {
 public:
  /// Empty path: nothing is kept. Throws Error, and changes nothing, for a file that cannot be read or written, that
  /// another run has open, that holds anything but cells, or cells of another version.
  CellsFile(std::filesystem::path path, Progress& progress);
  /// A file that this object made and that stayed empty is removed.
  ~CellsFile();
  CellsFile(const CellsFile&) = delete;
  CellsFile& operator=(const CellsFile&) = delete;

  /// The line of a cell that is there; nullptr otherwise.
  const std::string* find(const std::string& cell) const;
  /// Throws Error when the disk is full.
  void append(const std::string& line);

 private:
  void open();
  void read(Progress& progress);

  std::filesystem::path path_;
  int file_ = -1;
  bool created_ = false;
  bool empty_ = true;
  std::map<std::string, std::string> lines_;  // by cell
};

}  // namespace specmoe::cli
