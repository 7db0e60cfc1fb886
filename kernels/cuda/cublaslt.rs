//! Matrix products on the GPU, by cuBLASLt: bf16 or fp32 operands, fp32 sums, results in either type,
//! added to what stands there or not, with a bias on request. The algorithm is searched for once a
//! shape, and fp32 stays fp32 (no TF32).
//!
//! Matrices are row-major here and column-major there, so each product is handed over as its
//! transpose: `C = A B` as `Cᵀ = Bᵀ Aᵀ`, for which a row-major matrix needs no copy.

use std::collections::HashMap;
use std::ffi::c_void;
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};

use cudarc::cublaslt::result::CublasError;
use cudarc::cublaslt::{result, sys};

use super::driver::{Gpu, failed};
use super::launch::{CudaError, Element, Matrix};

/// NVIDIA's recommendation for Hopper.
const WORKSPACE: usize = 32 << 20;

/// The three products of a linear layer `y = x wᵀ`; see `matmul.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Product {
    /// `y = x wᵀ`: `[T, N]` of `[T, K]` and `[N, K]`.
    Forward,
    /// `dx = dy w`: `[T, K]` of `[T, N]` and `[N, K]`.
    Input,
    /// `dw = dyᵀ x`: `[N, K]` of `[T, N]` and `[T, K]`.
    Weight,
}

impl Product {
    /// Rows, columns and inner size of `left · right`, and the leading dimensions' transposes.
    ///
    /// # Panics
    /// Where the shapes do not meet.
    pub fn sizes(self, left: Matrix, right: Matrix) -> (usize, usize, usize) {
        let (sizes, meet) = match self {
            Product::Forward => ((left.rows, right.rows, left.cols), left.cols == right.cols),
            Product::Input => ((left.rows, right.cols, left.cols), left.cols == right.rows),
            Product::Weight => ((left.cols, right.cols, left.rows), left.rows == right.rows),
        };
        assert!(meet, "{self:?} of [{}, {}] and [{}, {}]", left.rows, left.cols, right.rows, right.cols);
        sizes
    }
}

/// What a plan depends on.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    product: Product,
    sizes: (usize, usize, usize),
    input: Element,
    output: Element,
    bias: bool,
    /// Of the left and right operand and of the result: parts of matrices begin at any 16 bytes.
    alignment: [u32; 3],
}

/// Bytes to which a matrix is aligned, 256 at most: what the library takes for granted where it is not told.
fn alignment(matrix: Matrix) -> u32 {
    1 << matrix.address().trailing_zeros().min(8)
}

/// Descriptions of one product, and the algorithm found for it.
#[derive(Clone, Copy)]
struct Plan {
    description: sys::cublasLtMatmulDesc_t,
    /// Of the transposed right and left operand, and of the result.
    layouts: [sys::cublasLtMatrixLayout_t; 3],
    algorithm: sys::cublasLtMatmulAlgo_t,
}

/// cuBLASLt on one device's stream. Plans live as long as the process: their number is that of the
/// model's shapes.
pub struct Blas {
    gpu: Rc<Gpu>,
    handle: sys::cublasLtHandle_t,
    workspace: u64,
    plans: Mutex<HashMap<Key, Plan>>,
}

fn refused(step: &str) -> impl Fn(CublasError) -> CudaError {
    move |error| failed(&format!("cuBLASLt: {step}"), error)
}

impl Blas {
    pub fn new(gpu: &Rc<Gpu>) -> Result<Self, CudaError> {
        // SAFETY: opening NVIDIA's library runs its initialisers, which ask nothing of the caller.
        if !unsafe { sys::is_culib_present() } {
            return Err(CudaError::Missing("cuBLASLt (libcublasLt.so)"));
        }
        gpu.bind()?;
        let handle = result::create_handle().map_err(refused("create"))?;
        let workspace = gpu.allocate(WORKSPACE)?;
        Ok(Blas { gpu: Rc::clone(gpu), handle, workspace, plans: Mutex::default() })
    }

    /// `out (+)= left · right` in the sense of `product`, plus `bias` `[1, columns]` of the result's
    /// type. Sums are fp32 whatever the types.
    pub fn product(
        &self,
        product: Product,
        out: Matrix,
        (left, right): (Matrix, Matrix),
        accumulate: bool,
        bias: Option<Matrix>,
    ) -> Result<(), CudaError> {
        let sizes = product.sizes(left, right);
        let (m, n, k) = sizes;
        out.expect("the product", out.element, m, n);
        assert_eq!(left.element, right.element, "operands are of one type");
        if let Some(bias) = bias {
            bias.expect("bias", out.element, 1, n);
        }
        if m == 0 || n == 0 || k == 0 {
            assert!(k > 0 || accumulate, "a product over nothing has no values");
            return Ok(());
        }
        self.gpu.bind()?;
        let key = Key {
            product,
            sizes,
            input: left.element,
            output: out.element,
            bias: bias.is_some(),
            alignment: [left, right, out].map(alignment),
        };
        // Held over the call: the bias pointer is part of the description.
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        let plan = match plans.get(&key) {
            Some(&plan) => plan,
            None => {
                let plan = self.plan(&key, left, right)?;
                plans.insert(key, plan);
                plan
            }
        };
        if let Some(bias) = bias {
            set(
                plan.description,
                sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_BIAS_POINTER,
                bias.address(),
            )?;
        }
        let (alpha, beta) = (1.0f32, if accumulate { 1.0f32 } else { 0.0 });
        let [a, b, c] = plan.layouts;
        // SAFETY: matrices are where their makers promised; layouts are those of their shapes.
        unsafe {
            result::matmul(
                self.handle,
                plan.description,
                (&raw const alpha).cast(),
                (&raw const beta).cast(),
                right.address() as *const c_void,
                a,
                left.address() as *const c_void,
                b,
                out.address() as *const c_void,
                c,
                out.address() as *mut c_void,
                c,
                &plan.algorithm,
                self.workspace as *mut c_void,
                WORKSPACE,
                self.gpu.stream().cu_stream().cast(),
            )
        }
        .map_err(refused("product"))
    }

    fn plan(&self, key: &Key, left: Matrix, right: Matrix) -> Result<Plan, CudaError> {
        let description = result::create_matmul_desc(
            sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
            sys::cudaDataType::CUDA_R_32F,
        )
        .map_err(refused("description"))?;
        let (transpose_right, transpose_left) = match key.product {
            Product::Forward => (1i32, 0i32),
            Product::Input => (0, 0),
            Product::Weight => (0, 1),
        };
        use sys::cublasLtMatmulDescAttributes_t as Attribute;
        set(description, Attribute::CUBLASLT_MATMUL_DESC_TRANSA, transpose_right)?;
        set(description, Attribute::CUBLASLT_MATMUL_DESC_TRANSB, transpose_left)?;
        if key.bias {
            let epilogue = sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS as u32;
            set(description, Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue)?;
        }
        let layout = |element: Element, rows: usize, cols: usize| {
            // A row-major [rows, cols] is a column-major [cols, rows].
            result::create_matrix_layout(data_type(element), cols as u64, rows as u64, cols as i64)
                .map_err(refused("layout"))
        };
        let (m, n, _) = key.sizes;
        let layouts = [
            layout(right.element, right.rows, right.cols)?,
            layout(left.element, left.rows, left.cols)?,
            layout(key.output, m, n)?,
        ];
        let preference = result::create_matmul_pref().map_err(refused("preference"))?;
        let [a, b, c] = layouts;
        use sys::cublasLtMatmulPreferenceAttributes_t as Preference;
        prefer(preference, Preference::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, WORKSPACE as u64)?;
        // As the operands are handed over: right, left, and the result that is added to and written.
        let [of_left, of_right, of_out] = key.alignment;
        prefer(preference, Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, of_right)?;
        prefer(preference, Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, of_left)?;
        prefer(preference, Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, of_out)?;
        prefer(preference, Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, of_out)?;
        // SAFETY: all of these were made above.
        let found = unsafe {
            let found = result::get_matmul_algo_heuristic(self.handle, description, a, b, c, c, preference);
            // Nothing to do about a failure to free.
            let _ = result::destroy_matmul_pref(preference);
            found.map_err(refused("no algorithm"))?
        };
        Ok(Plan { description, layouts, algorithm: found.algo })
    }
}

impl Drop for Blas {
    fn drop(&mut self) {
        let plans = self.plans.get_mut().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: all were made by this object, and nothing uses them after it; failures to free are
        // nobody's to mend.
        unsafe {
            for plan in plans.values() {
                let _ = result::destroy_matmul_desc(plan.description);
                for layout in plan.layouts {
                    let _ = result::destroy_matrix_layout(layout);
                }
            }
            let _ = self.gpu.free(self.workspace);
            let _ = result::destroy_handle(self.handle);
        }
    }
}

fn data_type(element: Element) -> sys::cudaDataType {
    match element {
        Element::Bf16 => sys::cudaDataType::CUDA_R_16BF,
        Element::F32 => sys::cudaDataType::CUDA_R_32F,
        other => panic!("no product of {other:?}"),
    }
}

fn set<T: bytemuck::NoUninit>(
    description: sys::cublasLtMatmulDesc_t,
    attribute: sys::cublasLtMatmulDescAttributes_t,
    value: T,
) -> Result<(), CudaError> {
    // SAFETY: the description is alive, and the value has the attribute's size.
    unsafe {
        result::set_matmul_desc_attribute(description, attribute, (&raw const value).cast(), size_of::<T>())
    }
    .map_err(refused("attribute"))
}

fn prefer<T: bytemuck::NoUninit>(
    preference: sys::cublasLtMatmulPreference_t,
    attribute: sys::cublasLtMatmulPreferenceAttributes_t,
    value: T,
) -> Result<(), CudaError> {
    // SAFETY: the preference is alive, and the value has the attribute's size.
    unsafe {
        result::set_matmul_pref_attribute(preference, attribute, (&raw const value).cast(), size_of::<T>())
    }
    .map_err(refused("preference"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(rows: usize, cols: usize) -> Matrix {
        // SAFETY: nothing is launched on it.
        unsafe { Matrix::new(0, rows, cols, Element::Bf16) }
    }

    #[test]
    fn an_alignment_is_that_of_the_address() {
        let whole = matrix(64, 64);
        assert_eq!([whole, whole.part(8, 1, 8), whole.part(64, 1, 8)].map(alignment), [256, 16, 128]);
    }

    #[test]
    fn the_three_products_of_a_layer_have_its_shapes() {
        let (t, n, k) = (5, 7, 3);
        assert_eq!(Product::Forward.sizes(matrix(t, k), matrix(n, k)), (t, n, k));
        assert_eq!(Product::Input.sizes(matrix(t, n), matrix(n, k)), (t, k, n));
        assert_eq!(Product::Weight.sizes(matrix(t, n), matrix(t, k)), (n, k, t));
    }
}
