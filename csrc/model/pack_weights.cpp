#include "model/pack_weights.h"

#include <utility>

namespace higgs_rt {

void pack_weights(ModelWeights& weights, Ops& ops) {
  const auto pack = [&](TensorView& weight) {
    Tensor packed = ops.pack(weight);
    if (!packed.view()) return;
    weight = packed.view();
    weights.owned.push_back(std::move(packed));
  };
  for (LayerWeights& layer : weights.layers) {
    for (TensorView* weight : {&layer.q, &layer.k, &layer.v, &layer.o}) pack(*weight);
    for (FfnWeights* ffn : {&layer.text.ffn, &layer.audio.ffn}) {
      for (TensorView* weight : {&ffn->gate, &ffn->up, &ffn->down}) pack(*weight);
    }
  }
  pack(weights.audio_head);
}

}  // namespace higgs_rt
