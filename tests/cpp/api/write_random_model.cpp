// Writes a small random model with codec: write_random_model DIRECTORY
#include <iostream>

#include "bench/random_checkpoint.h"
#include "higgs_rt/error.h"

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: write_random_model DIRECTORY\n";
    return 2;
  }
  try {
    higgs_rt::RandomLmShape shape;
    shape.endless = true;  // so that it speaks
    higgs_rt::write_random_lm(argv[1], shape, higgs_rt::DType::kF32, 1);
    higgs_rt::write_random_codec(std::string(argv[1]) + "/codec", {}, 2);
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
  return 0;
}
