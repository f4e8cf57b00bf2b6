#pragma once

// The command line of a benchmark: folders in order, everything else by name and with a default.

#include <boost/program_options.hpp>
#include <cstdio>
#include <exception>
#include <functional>
#include <iostream>
#include <string>
#include <utility>
#include <vector>

#include "kernels/check.h"

namespace specmoe::bench {

class CommandLine {
 public:
  /// about  what --help says it measures, one sentence
  CommandLine(std::string name, std::string about) : name_(std::move(name)), about_(std::move(about)) {}

  /// A value without a flag, in the order of these calls; it has to be there. name: as in --help, such as FOLDER.
  CommandLine& word(const char* name, std::string& value, const char* meaning) {
    positions_.add(name, 1);
    words_.push_back({name, meaning, &value});
    return *this;
  }

  /// --name TEXT; what `value` holds is the default.
  CommandLine& option(const char* name, std::string& value, const char* meaning) {
    options_.add_options()(name, boost::program_options::value(&value)->default_value(value), meaning);
    return *this;
  }
  /// --name TEXT TEXT ...
  CommandLine& option(const char* name, std::vector<std::string>& values, const char* meaning) {
    options_.add_options()(name, boost::program_options::value(&values)->multitoken(), meaning);
    return *this;
  }
  /// --name N, at least `least`.
  CommandLine& option(const char* name, int& value, int least, const char* meaning) {
    const auto check = [name, least](int number) {
      SPECMOE_CHECK(number >= least, "--", name, " is a whole number from ", least, " on, got ", number);
    };
    options_.add_options()(name, boost::program_options::value(&value)->default_value(value)->notifier(check), meaning);
    return *this;
  }

  // What most take, in the same words.
  CommandLine& threads(int& value) { return option("threads", value, 0, "computing threads; 0: one per usable core"); }
  CommandLine& output(std::string& value) { return option("output", value, "append JSON lines to this file"); }

  /// main(). Returns 0; 1 with the text of what `work` throws; 2 for a mistake in the call.
  int run(int argc, char** argv, const std::function<void()>& work) {
    options_.add_options()("help", "print this");
    try {
      if (!parse(argc, argv)) return 0;
    } catch (const std::exception& error) {
      std::fprintf(stderr, "%s: %s; see %s --help\n", name_.c_str(), error.what(), name_.c_str());
      return 2;
    }
    try {
      work();
    } catch (const std::exception& error) {
      std::fprintf(stderr, "%s: %s\n", name_.c_str(), error.what());
      return 1;
    }
    return 0;
  }

 private:
  struct Word {
    std::string name, meaning;
    std::string* value;
  };

  /// False when only help was wanted.
  bool parse(int argc, char** argv) {
    namespace po = boost::program_options;
    const int exact = po::command_line_style::unix_style & ~po::command_line_style::allow_guessing;
    po::options_description all;
    for (const Word& word : words_) all.add_options()(word.name.c_str(), po::value(word.value));
    all.add(options_);
    po::variables_map values;
    po::store(po::command_line_parser(argc, argv).options(all).positional(positions_).style(exact).run(), values);
    if (values.count("help") != 0) {
      std::cout << "Usage: " << name_;
      for (const Word& word : words_) std::cout << " " << word.name;
      std::cout << " [option]...\n\n" << about_ << "\n\n";
      for (const Word& word : words_) std::cout << "  " << word.name << "  " << word.meaning << "\n";
      std::cout << options_;
      return false;
    }
    for (const Word& word : words_)
      SPECMOE_CHECK(values.count(word.name) != 0, word.name, " is missing: ", word.meaning);
    po::notify(values);
    return true;
  }

  std::string name_;
  std::string about_;
  std::vector<Word> words_;
  boost::program_options::positional_options_description positions_;
  boost::program_options::options_description options_{"Options", 110};
};

}  // namespace specmoe::bench
