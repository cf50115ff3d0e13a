#include "bench/command_line.h"

#include <unistd.h>

#include <charconv>
#include <cmath>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <string_view>
#include <utility>

#include "core/check.h"

namespace higgs_rt::bench {
namespace {

bool can_be_written(const std::filesystem::path& file) {
  std::error_code ignored;
  if (std::filesystem::is_directory(file, ignored)) return false;
  if (std::filesystem::exists(file, ignored)) return ::access(file.c_str(), W_OK) == 0;
  const std::filesystem::path folder = file.has_parent_path() ? file.parent_path() : ".";
  return std::filesystem::is_directory(folder, ignored) && ::access(folder.c_str(), W_OK) == 0;
}

template <class T>
bool read_all(const std::string& text, T& out) {
  const char* end = text.data() + text.size();
  const auto [stopped, error] = std::from_chars(text.data(), end, out);
  return !text.empty() && error == std::errc() && stopped == end;
}

}  // namespace

void CommandLine::flag(const std::string& name, std::function<void()> set) {
  options_[name] = {false, [set = std::move(set)](const std::string&) { set(); }};
}

void CommandLine::value(const std::string& name, std::function<void(const std::string&)> read) {
  options_[name] = {true, std::move(read)};
}

void CommandLine::text(const std::string& name, std::string& out) {
  value(name, [&out](const std::string& value) { out = value; });
}

void CommandLine::output_file(const std::string& name, std::string& out) {
  value(name, [&out, name](const std::string& value) {
    check(can_be_written(value), name.c_str(), "expected a file that can be written, got \"", value,
          "\"");
    out = value;
  });
}

void CommandLine::number(const std::string& name, std::int32_t& out, std::int32_t least,
                         std::int32_t most) {
  value(name, [&out, name, least, most](const std::string& value) {
    out = to_number(value, name, least, most);
  });
}

void CommandLine::seconds(const std::string& name, double& out) {
  value(name, [&out, name](const std::string& value) { out = to_positive(value, name); });
}

void CommandLine::parse(int argc, char** argv) const {
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    const auto option = options_.find(name);
    check(option != options_.end(), name.c_str(), "expected an option of ", program_,
          ", got an unknown one");
    std::string value;
    if (option->second.takes_value) {
      check(i + 1 < argc, name.c_str(), "expected a value, got the end of the line");
      value = argv[++i];
    }
    option->second.read(value);
  }
}

std::int32_t to_number(const std::string& text, const std::string& option, std::int32_t least,
                       std::int32_t most) {
  std::int32_t value = 0;
  check(read_all(text, value) && value >= least && value <= most, option.c_str(),
        "expected a whole number in ", least, "..", most, ", got \"", text, "\"");
  return value;
}

double to_positive(const std::string& text, const std::string& option) {
  double value = 0;
  check(read_all(text, value) && std::isfinite(value) && value > 0, option.c_str(),
        "expected a number above 0, got \"", text, "\"");
  return value;
}

int run_main(int argc, char** argv, const char* usage, int failure,
             const std::function<int()>& body) {
  for (int i = 1; i < argc; ++i) {
    if (std::string_view(argv[i]) == "--help") {
      std::fputs(usage, stdout);
      return 0;
    }
  }
  try {
    return body();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n(--help names the options)\n", error.what());
    return failure;
  }
}

}  // namespace higgs_rt::bench
