// A codec's decoder with all that it stands on, and its golden data.
#pragma once

#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/thread_pool.h"
#include "model/codec_decoder.h"
#include "model/edited_checkpoint.h"

namespace higgs_rt::testing {

struct Codec {
  Codec(const std::string& directory, std::unique_ptr<Device> the_device,
        CodecPrecision precision = CodecPrecision::kFloat)
      : device(std::move(the_device)), pool(2), ops(make_ops(*device, pool)) {
    decoder = load_codec_decoder(directory, *ops, precision);
  }
  // Samples of codes [num_codebooks, frames].
  std::vector<float> decode(const std::vector<std::int32_t>& codes) {
    const auto frames = codes.size() / static_cast<std::size_t>(decoder->spec().num_codebooks);
    std::vector<float> pcm(frames * static_cast<std::size_t>(decoder->spec().samples_per_frame));
    decoder->decode(codes, static_cast<std::int32_t>(frames), pcm);
    return pcm;
  }
  std::unique_ptr<Device> device;
  ThreadPool pool;
  std::unique_ptr<Ops> ops;
  std::unique_ptr<CodecDecoder> decoder;
};

template <class T>
std::vector<T> golden(const StoredTensors& tensors, const std::string& name) {
  const std::string& bytes = tensors.at(name).bytes;
  std::vector<T> values(bytes.size() / sizeof(T));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

}  // namespace higgs_rt::testing
