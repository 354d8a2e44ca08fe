//! Mixed chunks.

use super::*;

#[test]
fn mixed_chunks() {
    for (len, chunk) in [(1, 4), (7, 8), (24, 8), (37, 8), (50, 16), (70, 33), (9, 1), (40, 1 << 30)] {
        for causal in [Causal::None, Causal::TopLeft, Causal::BottomRight] {
            for source in SOURCES {
                for (quadratic, linear) in [
                    (QuadraticDivisor::ChunkDim, LinearDivisor::Tokens),
                    (QuadraticDivisor::Fixed(7.0), LinearDivisor::Chunk),
                    (QuadraticDivisor::Fixed(1e-3), LinearDivisor::Fixed(0.3)),
                ] {
                    let mode = GauMode::MixedChunk { chunk, quadratic, linear };
                    let config = GatedAttentionConfig::new().causal(causal).mode(mode);
                    let case = Case::new(config, source, [2, 2, 2, len, len, 8, 8]).gated();
                    case.check("mixed");
                }
            }
        }
    }
}

#[test]
fn mixed_chunks_take_value_dims_in_turns_where_the_workspace_is_small() {
    let [.., config] = each_kernel();
    let case = Case::new(config.causal(Causal::TopLeft), Source::Shared, [1, 2, 2, 50, 50, 8, 1700]).gated();
    for (_, context) in own_and_any_gpu() {
        let whole = case.run(context, Placement::Aligned);
        case.assert("whole", &whole);
        let options = ContextOptions { max_workspace_bytes: 300 << 10, ..Default::default() };
        let turns = case.run(&context_with(context, options), Placement::Aligned);
        assert_same_bits("in turns", &whole, &turns);
        let options = ContextOptions { max_workspace_bytes: 2 << 10, ..Default::default() };
        let error = case.try_run(&context_with(context, options), Placement::Aligned).err();
        let error = error.map_or(String::new(), |error| error.to_string());
        assert!(error.contains("states of the chunks: bytes of workspace"), "{error}");
    }
}
