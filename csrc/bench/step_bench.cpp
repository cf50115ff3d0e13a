// Whole decode steps of pure audio rows over distinct weights, in the order of the decoder
// (specification 3.3), with random numbers.
#include "bench/report.h"

namespace higgs_rt::bench {

namespace {

struct ModelShape {
  std::int64_t hidden, ffn, query_heads, kv_heads, dim, codebooks, vocab;
};

struct Layer {
  Tensor norm, q, k, v, o, gate, up, down;
};

// One sequence per row, each with `context` positions in a cache of its own blocks.
struct Step {
  Step(Machine& machine, const ModelShape& shape, int num_layers, std::int64_t rows,
       std::int32_t context);
  void run(Ops& ops) const;
  double weight_bytes() const;

  ModelShape shape;
  std::vector<Layer> layers;
  Tensor table, head, x, normed, q, k, v, attended, gate, up, logits;
  Tensor k_cache, v_cache, rope, columns, position, sequence, slots, blocks;
  KvLayout layout;
};

Step::Step(Machine& machine, const ModelShape& s, int num_layers, std::int64_t rows,
           std::int32_t context)
    : shape(s) {
  const auto weight = [&](std::int64_t out, std::int64_t in) {
    Tensor stored = machine.random({out, in}, DType::kBF16);
    Tensor packed = machine.ops->pack(stored);
    return packed.view() ? packed : stored;
  };
  const std::int64_t q_size = s.query_heads * s.dim, kv_size = s.kv_heads * s.dim;
  for (int i = 0; i < num_layers; ++i) {
    layers.push_back({machine.random({s.hidden}, DType::kBF16), weight(q_size, s.hidden),
                      weight(kv_size, s.hidden), weight(kv_size, s.hidden),
                      weight(s.hidden, q_size), weight(s.ffn, s.hidden), weight(s.ffn, s.hidden),
                      weight(s.hidden, s.ffn)});
  }
  table = machine.random({s.codebooks * s.vocab, s.hidden}, DType::kBF16);
  head = weight(s.codebooks * s.vocab, s.hidden);
  x = machine.random({rows, s.hidden});
  normed = machine.random({rows, s.hidden});
  q = machine.random({rows, s.query_heads, s.dim});
  k = machine.random({rows, s.kv_heads, s.dim});
  v = machine.random({rows, s.kv_heads, s.dim});
  attended = machine.random({rows, s.query_heads, s.dim});
  gate = machine.random({rows, s.ffn});
  up = machine.random({rows, s.ffn});
  logits = machine.random({rows, s.codebooks * s.vocab});
  layout.block_tokens = 16;
  layout.num_blocks = static_cast<std::int32_t>(rows) * layout.blocks_for(context);
  k_cache = machine.random({layout.num_slots(), s.kv_heads, s.dim});
  v_cache = machine.random({layout.num_slots(), s.kv_heads, s.dim});
  rope = machine.random({context, s.dim / 2, 2});
  const auto ids = [&](Shape shape_of, auto value) {
    Tensor tensor(*machine.device, DType::kI32, std::move(shape_of));
    for (std::int64_t i = 0; i < tensor.view().size(); ++i) {
      tensor.as<std::int32_t>()[i] = static_cast<std::int32_t>(value(i));
    }
    return tensor;
  };
  const std::int64_t per_row = layout.blocks_for(context);
  columns = ids({rows, s.codebooks}, [&](std::int64_t i) { return i % s.vocab; });
  position = ids({rows}, [&](std::int64_t) { return context - 1; });
  sequence = ids({rows}, [](std::int64_t i) { return i; });
  blocks = ids({rows, per_row}, [](std::int64_t i) { return i; });
  slots =
      ids({rows}, [&](std::int64_t i) { return i * per_row * layout.block_tokens + context - 1; });
}

TensorView flat(const Tensor& tensor) {
  TensorView view = tensor.view();
  view.shape = {view.dim(0), view.size() / view.dim(0)};
  return view;
}

void Step::run(Ops& ops) const {
  ops.embed_columns(table, columns, x);
  for (const Layer& layer : layers) {
    ops.rms_norm(x, layer.norm, 1e-5f, normed);
    ops.linear(normed, layer.q, flat(q));
    ops.linear(normed, layer.k, flat(k));
    ops.linear(normed, layer.v, flat(v));
    ops.rope(q, position, rope);
    ops.rope(k, position, rope);
    ops.store_kv(k, v, slots, k_cache, v_cache);
    ops.attention(q, k_cache, v_cache, {sequence, position, blocks, layout}, attended);
    ops.linear(flat(attended), layer.o, x, true);
    ops.rms_norm(x, layer.norm, 1e-5f, normed);
    ops.linear(normed, layer.gate, gate);
    ops.linear(normed, layer.up, up);
    ops.swiglu(gate, up, gate);
    ops.linear(gate, layer.down, x, true);
  }
  ops.rms_norm(x, layers.front().norm, 1e-5f, normed);
  ops.linear(normed, head, logits);
}

double Step::weight_bytes() const {
  double bytes = static_cast<double>(head.view().bytes());
  for (const Layer& l : layers) {
    for (const Tensor* t : {&l.norm, &l.q, &l.k, &l.v, &l.o, &l.gate, &l.up, &l.down}) {
      bytes += static_cast<double>(t->view().bytes());
    }
  }
  return bytes;
}

void bench_model(Machine& machine, Report& report, const char* group, const ModelShape& shape,
                 int num_layers, std::int32_t context) {
  if (!report.wants(group)) return;
  for (const std::int64_t rows : {1, 4, 8, 32}) {
    const Step step(machine, shape, num_layers, rows, context);
    const Timing timing = measure(2 * report.options().seconds, [&] { step.run(*machine.ops); });
    Row row{group, std::to_string(num_layers) + " layers, context " + std::to_string(context), rows,
            timing.best, timing.median};
    row.bytes = step.weight_bytes();
    row.flops = row.bytes * static_cast<double>(rows);  // two per weight of two bytes
    report.add(row);
  }
}

}  // namespace

void bench_steps(Machine& machine, Report& report) {
  bench_model(machine, report, "step 3B", {3072, 8192, 24, 8, 128, 8, 1026},
              report.options().layers, 500);
  bench_model(machine, report, "step demo", {256, 640, 4, 2, 64, 8, 258}, 8, 200);
}

}  // namespace higgs_rt::bench
