//! The uniforms of the kernels under `shaders/linear_attention/`; units are there.

use crate::params::params;

params! {
    /// Uniform of `features.wgsl`.
    struct FeaturesParams {
        first_workgroup: u32,
        end_workgroup: u32,
        first_head: u32,
        heads: u32,
        first_row: u32,
        rows: u32,
        tiles: u32,
        blocks: u32,
        input_scale: f32,
        log_norm: f32,
        q_start: u32,
        q_batch: u32,
        q_head: u32,
        q_row: u32,
        projection_start: u32,
        projection_row: u32,
    }
}

params! {
    /// Uniform of `chunk_state.wgsl`.
    struct ChunkStateParams {
        first_workgroup: u32,
        end_workgroup: u32,
        first_head: u32,
        kv_heads: u32,
        kv_len: u32,
        chunk_len: u32,
        first_chunk: u32,
        chunks: u32,
        slots: u32,
        feature_tiles: u32,
        value_blocks: u32,
        input_scale: f32,
        k_start: u32,
        k_batch: u32,
        k_head: u32,
        k_row: u32,
        v_start: u32,
        v_batch: u32,
        v_head: u32,
        v_row: u32,
        kv_lens_start: u32,
        kv_lens_stride: u32,
    }
}

params! {
    /// Uniform of `prefix.wgsl`.
    struct PrefixParams {
        first_workgroup: u32,
        end_workgroup: u32,
        vectors: u32,
        slots: u32,
        chunks: u32,
        carry_in: u32,
        carry_out: u32,
        fresh: u32,
    }
}

params! {
    /// Uniform of `output.wgsl`.
    struct OutputParams {
        first_workgroup: u32,
        end_workgroup: u32,
        first_head: u32,
        kv_heads: u32,
        group: u32,
        q_len: u32,
        chunk_len: u32,
        first_chunk: u32,
        chunks: u32,
        tiles: u32,
        slots: u32,
        first_slot: u32,
        slot_step: u32,
        input_scale: f32,
        eps: f32,
        log_eps: f32,
        q_start: u32,
        q_batch: u32,
        q_head: u32,
        q_row: u32,
        k_start: u32,
        k_batch: u32,
        k_head: u32,
        k_row: u32,
        v_start: u32,
        v_batch: u32,
        v_head: u32,
        v_row: u32,
        o_start: u32,
        o_batch: u32,
        o_head: u32,
        o_row: u32,
    }
}

params! {
    /// Uniform of `load_state.wgsl` and `store_state.wgsl`.
    struct StateParams {
        first_workgroup: u32,
        end_workgroup: u32,
        first_head: u32,
        kv_heads: u32,
        vectors: u32,
        slots: u32,
        slot: u32,
        s_start: u32,
        s_batch: u32,
        s_head: u32,
        s_row: u32,
        z_start: u32,
        z_batch: u32,
        z_head: u32,
        max_start: u32,
        max_batch: u32,
        max_head: u32,
        max_feature: u32,
    }
}

params! {
    /// Uniform of `step.wgsl`.
    struct StepParams {
        first_workgroup: u32,
        end_workgroup: u32,
        kv_heads: u32,
        group: u32,
        input_scale: f32,
        eps: f32,
        log_eps: f32,
        q_start: u32,
        q_batch: u32,
        q_head: u32,
        k_start: u32,
        k_batch: u32,
        k_head: u32,
        v_start: u32,
        v_batch: u32,
        v_head: u32,
        o_start: u32,
        o_batch: u32,
        o_head: u32,
        s_start: u32,
        s_batch: u32,
        s_head: u32,
        s_row: u32,
        z_start: u32,
        z_batch: u32,
        z_head: u32,
        max_start: u32,
        max_batch: u32,
        max_head: u32,
        max_feature: u32,
    }
}

params! {
    /// Uniform of `tokens.wgsl`.
    struct TokensParams {
        first_workgroup: u32,
        end_workgroup: u32,
        first_token: u32,
        end_token: u32,
        first_head: u32,
        kv_heads: u32,
        group: u32,
        features: u32,
        value_blocks: u32,
        eps: f32,
        carry_in: u32,
        carry_out: u32,
        fresh: u32,
        q_start: u32,
        q_batch: u32,
        q_head: u32,
        q_row: u32,
        k_start: u32,
        k_batch: u32,
        k_head: u32,
        k_row: u32,
        v_start: u32,
        v_batch: u32,
        v_head: u32,
        v_row: u32,
        o_start: u32,
        o_batch: u32,
        o_head: u32,
        o_row: u32,
        kv_len: u32,
        kv_lens_start: u32,
        kv_lens_stride: u32,
    }
}
