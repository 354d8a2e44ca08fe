// Matrices of 8 x 8 that a subgroup multiplies: factors in f16, sums in f32.
const SIZE: u32 = 8u;
alias Left = coop_mat8x8<f16, A>;
alias Right = coop_mat8x8<f16, B>;
alias Sums = coop_mat8x8<f32, C>;
