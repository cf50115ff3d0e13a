// The command lines of the benchmarks: "--name value" and "--name" alone.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>

namespace higgs_rt::bench {

// Options by their names, and what each one is read into. All errors are kInvalidArgument and name
// the option, the value and what was expected.
class CommandLine {
 public:
  explicit CommandLine(std::string program) : program_(std::move(program)) {}

  void flag(const std::string& name, std::function<void()> set);
  void value(const std::string& name, std::function<void(const std::string& value)> read);
  void text(const std::string& name, std::string& out);
  // A file that is written at the end: refused here where it could not be.
  void output_file(const std::string& name, std::string& out);
  void number(const std::string& name, std::int32_t& out, std::int32_t least,
              std::int32_t most = 1 << 24);
  void seconds(const std::string& name, double& out);

  void parse(int argc, char** argv) const;

 private:
  struct Option {
    bool takes_value = true;
    std::function<void(const std::string& value)> read;
  };

  std::string program_;
  std::map<std::string, Option> options_;
};

// Throws as above, for `option`.
std::int32_t to_number(const std::string& text, const std::string& option, std::int32_t least,
                       std::int32_t most = 1 << 24);
double to_positive(const std::string& text, const std::string& option);

// What a program's main does: --help prints `usage` and is no error; what `body` throws is printed,
// and `failure` returned.
int run_main(int argc, char** argv, const char* usage, int failure,
             const std::function<int()>& body);

}  // namespace higgs_rt::bench
