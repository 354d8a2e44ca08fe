// Matrices of 16 x 16 that a subgroup multiplies: factors in f16, sums in f32.
const SIZE: u32 = 16u;
alias Left = coop_mat16x16<f16, A>;
alias Right = coop_mat16x16<f16, B>;
alias Sums = coop_mat16x16<f32, C>;
