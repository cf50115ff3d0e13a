// The contract of every operation. Models are written over Ops and never name a device.
//
// All tensors are contiguous, row-major and on the device of the Ops. Work is enqueued in order.
// Activations (A below) are fp32 on the CPU; on CUDA fp32 or bf16, one type per model, the type of
// its weights. The residual stream, tables of the rotary embedding, prompt-table rows and logits
// are fp32 everywhere; the KV cache has the type of the activations. Sums are fp32. Outputs must
// not overlap inputs unless stated. Shapes are checked; a mismatch throws kInternal.
//
// Row independence: every op that takes rows computes each row with an order of operations that
// does not depend on the other rows or on their number, given the kind of the rows. A request
// therefore gives the same columns alone, in any batch and under any split of its prompt into
// chunks, as long as each of its positions is always computed as a row of the same kind. (CUDA:
// docs/gpu.md says which numbers of decode rows share an order.)
//
// Padding rows (CUDA only, decode rows in graphs over more rows than a step has): position -1 and
// slot -1.
// rope leaves such a row alone, store_kv writes nothing for it, attention gives zeros.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/device.h"
#include "core/tensor.h"
#include "core/thread_pool.h"
#include "kv/kv_layout.h"

namespace higgs_rt {

// What the rows of a call are in their sequences. A device may have a fast way for each kind, so
// the same row may round differently as a row of another kind; the CPU has one way for both.
enum class RowKind {
  kPrompt,  // any rows
  kDecode,  // each is the only row of its sequence, as in a step that gives a column to each
};

class Ops {
 public:
  virtual ~Ops() = default;
  virtual Device& device() = 0;

  // Whether the calling thread is in the middle of a series of operations. A hint, by which those
  // who share a thread pool leave each other their CPUs between two operations too.
  virtual void set_busy(bool /*busy*/) {}

  // --- Decoder ------------------------------------------------------------------------------

  // out[i] = ids[i] < V ? table[ids[i]] : table_rows[ids[i] - V].
  // table [V, H] fp32 or bf16, table_rows [n, H] fp32 (may have no rows), ids [R] i32, out [R, H]
  // fp32.
  virtual void embed_text(const TensorView& table, const TensorView& table_rows,
                          const TensorView& ids, const TensorView& out) = 0;

  // out[i] = index[i] >= StepBatch::kFeedback ? last[index[i] - kFeedback] : given[index[i]].
  // index [R] i32, given [n, K] i32, last [rows, K] i32, out [R, K] i32.
  virtual void gather_columns(const TensorView& index, const TensorView& given,
                              const TensorView& last, const TensorView& out) = 0;

  // out[i] = sum over k of table[k * V + columns[i, k]] (specification 3.1), V = table rows / K.
  // table [K * V, H] fp32 or bf16, columns [R, K] i32, out [R, H] fp32.
  virtual void embed_columns(const TensorView& table, const TensorView& columns,
                             const TensorView& out) = 0;

  // out = x / sqrt(mean(x^2) + eps) * weight; x [R, H] fp32, out [R, H] A (may be x when A is
  // fp32), weight [H] fp32 or bf16.
  virtual void rms_norm(const TensorView& x, const TensorView& weight, float eps,
                        const TensorView& out) = 0;

  // A linear weight [O, I] once more, in the order in which linear() reads it fastest; only
  // linear() and what is made of it understand the copy. Empty: the device takes it as it is.
  virtual Tensor pack(const TensorView& /*weight*/) { return {}; }

  // out = x weight^T, or out += x weight^T when `accumulate`.
  // x [R, I] A, weight [O, I] fp32 or bf16 or what pack() made of it, out [R, O] A or fp32 (fp32
  // when `accumulate`).
  virtual void linear(const TensorView& x, const TensorView& weight, const TensorView& out,
                      bool accumulate = false, RowKind kind = RowKind::kDecode) = 0;

  // The factors of n adapters (LoRA) for one linear weight [O, I]. What an adapter lacks, and what
  // fills its rank up, is zeros. Empty: no adapter has factors for this weight.
  struct Lora {
    TensorView a;  // [n, rank, I] A
    TensorView b;  // [n, O, rank] A
  };
  // Which adapter a row has. `rank` is one for all factors, a multiple of 8.
  struct LoraRows {
    TensorView adapter;  // [R] i32, below n; -1: none, the row is left as it is
    TensorView scale;    // [n] fp32
    TensorView work;     // at least [weights, R, rank] fp32, working memory
  };
  // outs[p][i] += b[a] (scale[a] * a[a] x[i]) of weight p, with a = adapter[i], for up to kMaxLora
  // weights that share their input. The inner product is fp32. Both kinds of rows have the same
  // bits. x [R, I] A, outs [R, O of p] A or fp32, on the CPU fp32.
  static constexpr std::size_t kMaxLora = 3;
  virtual void add_lora(const TensorView& x, std::span<const Lora> weights, const LoraRows& rows,
                        std::span<const TensorView> outs) = 0;

  // Rotates pairs (i, i + D/2) of every head by the row's position (specification 3.4), in place.
  // x [R, heads, D] A, positions [R] i32, table [positions, D/2, 2] fp32 (cos, sin).
  virtual void rope(const TensorView& x, const TensorView& positions, const TensorView& table) = 0;

  // Writes row i of k and v to slot slots[i]. k, v [R, Hk, D] A, slots [R] i32,
  // caches [num_slots, Hk, D] A.
  virtual void store_kv(const TensorView& k, const TensorView& v, const TensorView& slots,
                        const TensorView& k_cache, const TensorView& v_cache) = 0;

  // On CUDA the three tensors are filled by copies before the step (core/cuda/copy_words.h says how
  // a copying kernel may do that): they may be read before the kernels ahead have finished
  // (core/cuda/launch.cuh). So may, for decode rows, the cache at all positions before a row's own:
  // earlier steps wrote them.
  struct AttentionBatch {
    TensorView sequence;     // [R] i32: sequence of each row
    TensorView position;     // [R] i32: row i attends to positions 0..position[i] of its sequence
    TensorView block_table;  // [sequences, max_blocks] i32
    KvLayout layout;
    RowKind kind = RowKind::kPrompt;
  };
  // To be called once for a step, before its calls of attention(), with the shapes of those and the
  // same batch: what a device finds out about the rows of prompts lasts until the next call.
  virtual void plan_attention(const TensorView& q, const TensorView& k_cache,
                              const AttentionBatch& batch);
  // The next attention() will be over these caches, for rows like those of `batch`. A hint, by
  // which a device may have keys and values nearer while it does other work.
  virtual void expect_attention(const TensorView& /*k_cache*/, const TensorView& /*v_cache*/,
                                const AttentionBatch& /*batch*/) {}
  // Causal attention over the paged cache, scale 1/sqrt(D), softmax in fp32. Query head h reads
  // key/value head h / (Hq / Hk). q and out [R, Hq, D] A, caches [num_slots, Hk, D] A.
  virtual void attention(const TensorView& q, const TensorView& k_cache, const TensorView& v_cache,
                         const AttentionBatch& batch, const TensorView& out) = 0;

  // out = silu(gate) * up; all [R, F] A; out may be gate or up.
  virtual void swiglu(const TensorView& gate, const TensorView& up, const TensorView& out) = 0;

  // out[i] = x[rows[i]]; x [R, H] fp32, rows [n] i32, out [n, H] fp32.
  virtual void gather_rows(const TensorView& x, const TensorView& rows, const TensorView& out) = 0;

  // --- Stages of the decoder: a device may fuse them; the default, over the operations above, is
  // the definition (stages.cpp). What a fused form does not need of the working memory it leaves
  // alone, so nobody may read it afterwards. ---------------------------------------------------

  // Sums of the columns that the host gave or the sampler wrote: gather_columns, embed_columns.
  struct ColumnInput {
    TensorView index;    // [R] i32, as gather_columns
    TensorView given;    // [n, K] i32
    TensorView last;     // [sampler rows, K] i32
    TensorView table;    // [K * V, H]
    TensorView columns;  // [R, K] i32, working memory
  };
  virtual void embed_audio(const ColumnInput& input, const TensorView& out);

  // From the residual stream to queries, keys and values: rms_norm with the norm of each row's
  // modality, linear, add_lora if any, rope, store_kv.
  struct AttentionInput {
    std::int64_t num_text_rows = 0;    // rows [0, num_text_rows) take the text norm
    TensorView text_norm, audio_norm;  // [H]
    float eps = 0;
    TensorView q_weight, k_weight, v_weight;  // on CUDA one after another in memory (weights.h)
    TensorView position, slot;                // [R] i32
    TensorView rope;                          // [positions, D/2, 2] fp32
    TensorView normed, k, v;                  // [R, H], [R, Hk, D], [R, Hk, D] A, working memory
    RowKind kind = RowKind::kDecode;
    std::span<const Lora> lora = {};  // of q, k, v; none: no adapters
    LoraRows lora_rows = {};
  };
  // x [R, H] fp32, q [R, Hq, D] A, caches as in store_kv.
  virtual void attention_input(const TensorView& x, const AttentionInput& input,
                               const TensorView& q, const TensorView& k_cache,
                               const TensorView& v_cache);

  // From the residual stream to the activated FFN of one modality: rms_norm, linear, add_lora if
  // any, swiglu.
  struct FfnInput {
    TensorView norm;  // [H]
    float eps = 0;
    TensorView gate_weight, up_weight;  // on CUDA one after another in memory (weights.h)
    TensorView normed, up;              // [R, H], [R, F] A, working memory
    RowKind kind = RowKind::kDecode;
    std::span<const Lora> lora = {};  // of gate, up; none: no adapters
    LoraRows lora_rows = {};
  };
  // x [R, H] fp32, out [R, F] A.
  virtual void ffn_input(const TensorView& x, const FfnInput& input, const TensorView& out);

  // Logits of some rows: gather_rows, rms_norm, linear.
  struct HeadInput {
    TensorView rows;  // [L] i32
    TensorView norm;  // [H]
    float eps = 0;
    TensorView weight;        // [K * V, H]
    TensorView last, normed;  // [L, H] fp32, [L, H] A, working memory
    RowKind kind = RowKind::kDecode;
  };
  // x [R, H] fp32, out [L, K * V] fp32.
  virtual void head(const TensorView& x, const HeadInput& input, const TensorView& out);

  // All layers and the head of a step of audio rows of RowKind::kDecode without adapters: for every
  // layer attention_input, attention, linear, ffn_input, linear, then head of all rows in order.
  struct DecodeLayer {
    AttentionInput attention;  // its position, slot, rope and eps are those of every layer
    TensorView o_weight;
    FfnInput ffn;
    TensorView down_weight;
    TensorView k_cache, v_cache;
  };
  struct DecodeStep {
    std::vector<DecodeLayer> layers;
    AttentionBatch batch;
    TensorView norm;  // [H], the head's
    TensorView head;  // [K * V, H]
    // Most rows that a step of this decoder can have; 0: any number. A device may choose by it
    // between forms that round differently.
    std::int64_t most_rows = 0;
  };
  // x [R, H] fp32, working memory afterwards; out [R, K * V] fp32. False, having done nothing,
  // where a device has no form of its own for that: the caller then takes the stages one by one.
  virtual std::int64_t decode_step_rows() const { return 0; }  // most that any such form takes
  virtual bool decode_step(const TensorView& x, const DecodeStep& step, const TensorView& out);

  // --- Codec decoder (specification 8.1); time is the last axis ------------------------------

  // out[d, t] = bias[d] + sum over k of tables[k, codes[k, t], d].
  // tables [K, V, D] fp32, bias [D], codes [K, T] i32, out [D, T].
  virtual void sum_code_tables(const TensorView& tables, const TensorView& bias,
                               const TensorView& codes, const TensorView& out) = 0;

  struct Conv1d {
    std::int64_t stride = 1;
    std::int64_t dilation = 1;
    std::int64_t padding = 0;         // zeros on each side
    std::int64_t output_padding = 0;  // transposed only
  };
  // out[o, t] = bias[o] + sum over c, k of weight[o, c, k] x[c, t + k dilation - padding], stride
  // 1; plus residual[o, t] when given. x [C, T], weight [O, C, K] fp32, bias [O], out [O, T'], T' =
  // T + 2 padding - dilation (K - 1). `residual` may be `out`.
  virtual void conv1d(const TensorView& x, const TensorView& weight, const TensorView& bias,
                      const Conv1d& conv, const TensorView* residual, const TensorView& out) = 0;

  // A weight [C, O, K] of conv_transpose1d() with `stride`, in the order in which that reads it
  // fastest; nothing else understands the copy. Empty: the device takes it as it is.
  virtual Tensor pack_transposed(const TensorView& /*weight*/, std::int64_t /*stride*/) {
    return {};
  }

  // Transposed convolution: out[o, t stride + k - padding] += weight[c, o, k] x[c, t], plus bias.
  // x [C, T], weight [C, O, K] fp32 or what pack_transposed() made of it, bias [O], out [O, T'],
  // T' = (T - 1) stride - 2 padding + K + output_padding.
  virtual void conv_transpose1d(const TensorView& x, const TensorView& weight,
                                const TensorView& bias, const Conv1d& conv,
                                const TensorView& out) = 0;

  // out = x + sin^2(alpha x) / (alpha + 1e-9); x and out [C, T] (may be the same), alpha [C].
  virtual void snake(const TensorView& x, const TensorView& alpha, const TensorView& out) = 0;

  // One residual unit: snake, conv1d with `dilation` that keeps the length, snake, conv1d of one
  // tap, plus x. A stage as above. x, out and the working memory [C, T], all apart from each other.
  struct ResidualUnit {
    TensorView alpha1;          // [C]
    TensorView weight1, bias1;  // [C, C, K] with odd K, [C]
    std::int64_t dilation = 1;
    TensorView alpha2;          // [C]
    TensorView weight2, bias2;  // [C, C, 1], [C]
    TensorView work;            // [C, T], working memory
  };
  virtual void residual_unit(const TensorView& x, const ResidualUnit& unit, const TensorView& out);

  // out[c, t] = x[c, begin + t]. x [C, T], out [C, T'], 0 <= begin <= T - T'.
  virtual void crop(const TensorView& x, std::int64_t begin, const TensorView& out) = 0;
};

// `device` and `pool` must outlive the Ops.
std::unique_ptr<Ops> make_cpu_ops(Device& device, ThreadPool& pool);
// Throws kUnsupported when this build has no CUDA operations.
std::unique_ptr<Ops> make_cuda_ops(Device& device);
// By the kind of device.
std::unique_ptr<Ops> make_ops(Device& device, ThreadPool& pool);
// Instruction set that the CPU kernels use on this machine: "avx512", "avx2" or "generic".
const char* cpu_isa();

}  // namespace higgs_rt
