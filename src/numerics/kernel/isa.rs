//! The instruction sets that the fast kernel knows; none of them may change a bit.

use std::fmt;

use pulp::{Simd, WithSimd};

/// An instruction set.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Isa {
    /// 512-bit vectors on x86-64.
    Avx512,
    /// 256-bit vectors with fused multiply-add on x86-64.
    Avx2,
    /// 128-bit vectors on 64-bit Arm.
    Neon,
    /// One value at a time, anywhere.
    Scalar,
}

impl Isa {
    /// Every instruction set there is, widest first.
    pub const ALL: [Isa; 4] = [Isa::Avx512, Isa::Avx2, Isa::Neon, Isa::Scalar];

    /// Those that this machine has, widest first.
    pub fn available() -> Vec<Isa> {
        Isa::ALL.into_iter().filter(|isa| isa.is_available()).collect()
    }

    /// The widest that this machine has.
    pub fn best() -> Isa {
        Isa::available()[0]
    }

    /// Has this machine got it?
    pub fn is_available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => pulp::x86::V4::try_new().is_some(),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => pulp::x86::V3::try_new().is_some(),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => pulp::aarch64::Neon::try_new().is_some(),
            Isa::Scalar => true,
            #[allow(unreachable_patterns, reason = "which patterns are left depends on the target")]
            _ => false,
        }
    }

    /// Has it the registers for the sums of eight rows?
    pub(in crate::numerics) fn has_many_registers(self) -> bool {
        matches!(self, Isa::Avx512 | Isa::Neon)
    }

    /// Runs `op` compiled for this instruction set.
    pub(in crate::numerics) fn dispatch<Op: WithSimd>(self, op: Op) -> Op::Output {
        match self.dispatch_tall(op) {
            Ok(output) => output,
            #[cfg(target_arch = "x86_64")]
            Err(op) if self == Isa::Avx2 => Simd::vectorize(pulp::x86::V3::try_new().expect(CHECKED), op),
            Err(op) if self == Isa::Scalar => Simd::vectorize(pulp::Scalar::new(), op),
            Err(_) => unreachable!("{CHECKED}"),
        }
    }

    /// Runs `op`, or gives it back where there are not [many registers](Self::has_many_registers): for such an
    /// instruction set it is not even compiled.
    pub(in crate::numerics) fn dispatch_tall<Op: WithSimd>(self, op: Op) -> Result<Op::Output, Op> {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => Ok(Simd::vectorize(pulp::x86::V4::try_new().expect(CHECKED), op)),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => Ok(Simd::vectorize(pulp::aarch64::Neon::try_new().expect(CHECKED), op)),
            _ => Err(op),
        }
    }
}

const CHECKED: &str = "a kernel is only made for an instruction set that the machine has";

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Isa::Avx512 => "avx512",
            Isa::Avx2 => "avx2",
            Isa::Neon => "neon",
            Isa::Scalar => "scalar",
        })
    }
}
