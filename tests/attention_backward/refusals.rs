//! What is refused, before anything is recorded: each tensor spoiled, and what does not go together.

use wgpu_attention::{
    AttentionBackward, AttentionBackwardInputs, AttentionBackwardShapes, AttentionConfig, AttentionGradients, DType,
    Scale, TensorView,
};

use super::case::Case;
use super::common::{Placement, context};

type Spoil = for<'a> fn(&mut AttentionBackwardInputs<'a>, &mut AttentionGradients<'a>);

fn with_axis<const RANK: usize>(view: TensorView<'_, RANK>, axis: usize, extent: u32) -> TensorView<'_, RANK> {
    view.with_extent(axis, extent)
}

/// `(case, what the message must say, how to spoil a valid call)`.
const CASES: &[(&str, &[&str], Spoil)] = &[
    ("batch of k", &["k", "batch", "expected 2", "got 1"], |i, _| i.k = with_axis(i.k, 0, 1)),
    ("length of v", &["v", "kv_len", "expected 6", "got 5"], |i, _| i.v = with_axis(i.v, 2, 5)),
    ("dim of o", &["o", "v_dim", "expected 8", "got 4"], |i, _| i.o = with_axis(i.o, 3, 4)),
    ("rows of lse", &["lse", "q_len", "expected 5", "got 4"], |i, _| i.lse = with_axis(i.lse, 2, 4)),
    ("dim of dout", &["dout", "v_dim", "expected 8", "got 7"], |i, _| {
        i.dout = i.dout.map(|dout| with_axis(dout, 3, 7));
    }),
    ("rows of dlse", &["dlse", "q_heads", "got 1"], |i, _| i.dlse = Some(with_axis(i.lse, 1, 1))),
    ("heads of the bias", &["bias", "q_heads", "expected 4, or 1", "got 2"], |i, o| {
        (i.bias, o.dbias) = (i.bias.map(|bias| with_axis(bias, 1, 2)), None);
    }),
    ("dbias of another shape", &["dbias", "q_heads", "got 1"], |_, o| {
        o.dbias = o.dbias.map(|dbias| with_axis(dbias, 1, 1));
    }),
    ("dbias without a bias", &["dbias", "is given, but bias is not"], |i, _| i.bias = None),
    ("rows of dq", &["dq", "q_len", "expected 5", "got 4"], |_, o| o.dq = o.dq.map(|dq| with_axis(dq, 2, 4))),
    ("heads of dk", &["dk", "kv_heads", "expected 2", "got 1"], |_, o| o.dk = o.dk.map(|dk| with_axis(dk, 1, 1))),
    ("dim of dv", &["dv", "v_dim", "expected 8", "got 7"], |_, o| o.dv = o.dv.map(|dv| with_axis(dv, 3, 7))),
    ("heads of dscale", &["dscale", "q_heads", "expected 4", "got 3"], |_, o| {
        o.dscale = o.dscale.map(|dscale| with_axis(dscale, 0, 3));
    }),
    ("dq that overlaps itself", &["dq", "does not overlap itself"], |_, o| {
        o.dq = o.dq.map(|dq| dq.with_strides([0, 40, 8, 1]));
    }),
    ("dv over dk", &["dk", "overlaps the output", "dv"], |_, o| o.dv = o.dk),
    ("dq in the buffer of q", &["dq", "lies in the buffer of the input", "q"], |i, o| o.dq = Some(i.q)),
    ("innermost stride", &["dout", "stride", "v_dim", "expected 1"], |i, _| {
        i.dout = i.dout.map(|dout| dout.with_strides([1, 1, 1, 2]));
    }),
    ("nothing comes in", &["dout", "no gradient comes in"], |i, _| i.dout = None),
    ("nothing is asked for", &["dq", "no gradient is asked for"], |_, o| *o = AttentionGradients::none()),
    ("dentropy without the entropy", &["dentropy", "entropy is not"], |i, _| {
        (i.dentropy, i.entropy) = (Some(i.lse), None);
    }),
    ("row_scale of a scale for all", &["row_scale", "the scale is not per_row"], |i, _| i.row_scale = Some(i.lse)),
    ("drow_scale of a scale for all", &["drow_scale", "the scale is not per_row"], |i, o| o.drow_scale = Some(i.lse)),
];

#[test]
fn each_tensor_spoiled() {
    let case = Case::new(AttentionConfig::new(), [2, 4, 2, 5, 6, 8, 8]).with_bias([2, 4, 5, 6]);
    for (what, words, spoil) in CASES {
        let saved = case.saved();
        let (message, got) = case.call(context(), Placement::Aligned, saved, |op, mut inputs, mut outputs| {
            spoil(&mut inputs, &mut outputs);
            op.prepare(inputs, outputs).map(drop).expect_err(what).to_string()
        });
        assert!(words.iter().all(|word| message.contains(word)), "{what}: {message}");
        assert!(got.iter().all(|(_, numbers)| numbers.iter().all(|x| x.is_nan())), "{what}: something was recorded");
    }
}

#[test]
fn rows_with_scales_of_their_own_need_them() {
    let refused = |config: AttentionConfig, shapes: AttentionBackwardShapes| {
        let op = AttentionBackward::new(context(), config).expect("a config");
        op.plan(&shapes, DType::F32).expect_err("a refusal").to_string()
    };
    let shapes = AttentionBackwardShapes::new(1, 2, 5, 8);
    let per_row = AttentionConfig::new().scale(Scale::PerRow);
    assert!(refused(per_row, shapes).contains("the per_row scale needs it"));
    let [scale_batches, scale_heads, scale_rows] = [Some(1), Some(2), Some(5)];
    let own = AttentionBackwardShapes { scale_batches, scale_heads, scale_rows, ..shapes };
    assert!(refused(per_row, AttentionBackwardShapes { dscale: true, ..own }).contains("there is a drow_scale"));
    assert!(refused(per_row, AttentionBackwardShapes { scale_rows: Some(3), ..own }).contains("row_scale: axis q_len"));
    assert!(AttentionBackward::new(context(), AttentionConfig::new().softcap(-1.0)).is_err());
}
