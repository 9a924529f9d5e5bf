//! AdamW with clipping by the global norm.

use burn::tensor::Tensor;
use togi_kernels::{AdamWStep, adamw_step, sum_of_squares};
use togi_policy::Params;

use crate::{config::OptimSection, memory::note_peak};

/// Optimiser state of one model: moments of its trainable parameters, in their order.
#[derive(Clone, Debug, Default)]
pub struct AdamW {
    /// Updates done.
    pub step: u64,
    /// First and second moment by parameter name.
    pub moments: Vec<(String, Tensor<1>, Tensor<1>)>,
}

impl AdamW {
    /// Moments of zero for the trainable parameters.
    pub fn new(params: &Params) -> Self {
        let moments = params
            .iter()
            .filter(|(_, param)| param.trainable)
            .map(|(name, param)| {
                let zeros = param.tensor.zeros_like();
                // Two buffers: the updates are in place.
                (name.to_owned(), zeros, param.tensor.zeros_like())
            })
            .collect();
        Self { step: 0, moments }
    }

    /// One update with the learning rate `lr`. Gradients come in the order of the trainable
    /// parameters and are scaled down to the global norm `max_grad_norm` (0: not), as
    /// `torch.nn.utils.clip_grad_norm_` does. No weight decay on vectors (norms, biases).
    ///
    /// Returns the norm before clipping; if it is not finite, nothing is changed.
    pub fn update(
        &mut self,
        params: &mut Params,
        grads: Vec<(String, Tensor<1>)>,
        config: &OptimSection,
        lr: f64,
    ) -> f64 {
        let norm = sum_of_squares(grads.iter().map(|(_, g)| g)).sqrt();
        if let Some((_, grad)) = grads.first() {
            // Gradients are all there, and nothing waits for the device: their norm has just been read.
            note_peak(&grad.device());
        }
        if !norm.is_finite() {
            return norm;
        }
        let clip = config.max_grad_norm > 0.0;
        let grad_scale = if clip {
            (config.max_grad_norm / (norm + 1e-6)).min(1.0)
        } else {
            1.0
        };
        self.step += 1;
        let power = |beta: f64| 1.0 - beta.powi(self.step.min(i32::MAX as u64) as i32);
        let step = AdamWStep {
            lr,
            beta1: config.beta1,
            beta2: config.beta2,
            eps: config.eps,
            weight_decay: config.weight_decay,
            bias_correction1: power(config.beta1),
            bias_correction2: power(config.beta2),
            grad_scale,
        };
        let empty = |t: &Tensor<1>| Tensor::zeros([0], &t.device());
        for ((name, grad), (owner, m, v)) in grads.into_iter().zip(&mut self.moments) {
            debug_assert_eq!(
                name, *owner,
                "gradients come in the order of the parameters"
            );
            let Some(param) = params.get_mut(&name) else {
                continue;
            };
            let hp = if param.shape.len() < 2 {
                AdamWStep {
                    weight_decay: 0.0,
                    ..step
                }
            } else {
                step
            };
            // Take the tensors out, so that each has one owner and is updated in place.
            let gone = empty(&grad);
            let p = std::mem::replace(&mut param.tensor, gone.clone());
            let old_m = std::mem::replace(m, gone.clone());
            let old_v = std::mem::replace(v, gone);
            (param.tensor, *m, *v) = adamw_step(p, grad, old_m, old_v, &hp);
        }
        norm
    }
}
