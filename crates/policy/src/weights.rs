//! The tensors that one forward pass reads.

use std::collections::HashMap;

use burn::tensor::{Gradients, Tensor};
use togi_kernels::{GradientTotal, PackedLinear, WeightFormat, backward_into};

use crate::{
    decoder::EMBEDDING,
    params::{Param, Params},
    recompute::Passes,
};

/// A view of [`Params`] for a forward pass: on autodiff where gradients are wanted.
///
/// The parameters themselves stay off autodiff, so that an optimiser can update them in place
/// once the views are dropped.
#[derive(Clone, Debug)]
pub struct Weights {
    tensors: HashMap<String, Leaf>,
    trainable: Vec<String>,
    dropout: Option<DropoutKey>,
    /// Matrices of one input laid out for sampling, under the first one's name.
    packed: HashMap<String, PackedLinear>,
    /// Sampling alone reads these.
    for_sampling: bool,
    /// Where layers run again in the backward pass: what the forward passes left for it.
    passes: Option<Passes>,
}

/// A tensor in the shape that operations read it in: on autodiff, that is a leaf.
#[derive(Clone, Debug)]
enum Leaf {
    Vector(Tensor<1>),
    Matrix(Tensor<2>),
}

impl Leaf {
    fn of(param: &Param) -> Self {
        let tensor = param.tensor.clone();
        match param.shape[..] {
            [rows, columns] => Self::Matrix(tensor.reshape([rows, columns])),
            _ => Self::Vector(tensor),
        }
    }

    /// On autodiff, with a gradient.
    fn tracked(self) -> Self {
        match self {
            Self::Vector(x) => Self::Vector(Tensor::from_inner(x).require_grad()),
            Self::Matrix(x) => Self::Matrix(Tensor::from_inner(x).require_grad()),
        }
    }

    /// Off autodiff.
    fn plain(self) -> Self {
        match self {
            Self::Vector(x) => Self::Vector(x.inner()),
            Self::Matrix(x) => Self::Matrix(x.inner()),
        }
    }

    /// Its gradient in one row.
    fn take_gradient(&self, grads: &mut Gradients) -> Option<Tensor<1>> {
        match self {
            Self::Vector(x) => x.grad_remove(grads),
            Self::Matrix(x) => x.grad_remove(grads).map(flat),
        }
    }
}

fn flat(x: Tensor<2>) -> Tensor<1> {
    let [rows, columns] = x.dims();
    x.reshape([rows * columns])
}

/// Which random numbers a forward pass drops activations by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropoutKey {
    /// Seed of the run.
    pub seed: u64,
    /// Distinguishes forward passes: the same pass drops the same elements.
    pub pass: u64,
}

impl Weights {
    /// Leaves on autodiff for the trainable parameters, constants for the frozen ones.
    pub fn tracked(params: &Params) -> Self {
        let mut trainable = Vec::new();
        let tensors = params
            .iter()
            .map(|(name, param)| {
                let mut leaf = Leaf::of(param);
                if param.trainable {
                    trainable.push(name.to_owned());
                    leaf = leaf.tracked();
                }
                (name.to_owned(), leaf)
            })
            .collect();
        Self {
            tensors,
            trainable,
            dropout: None,
            packed: HashMap::new(),
            for_sampling: false,
            passes: None,
        }
    }

    /// No autodiff at all.
    pub fn frozen(params: &Params) -> Self {
        let tensors = params
            .iter()
            .map(|(name, param)| (name.to_owned(), Leaf::of(param)))
            .collect();
        Self {
            tensors,
            trainable: Vec::new(),
            dropout: None,
            packed: HashMap::new(),
            for_sampling: false,
            passes: None,
        }
    }

    /// Lays the named matrices, of one input, out for sampling. They stay as they are where that has no
    /// form.
    pub(crate) fn pack(&mut self, names: &[String], format: WeightFormat) {
        let matrices: Option<Vec<Tensor<2>>> = names.iter().map(|name| self.matrix(name)).collect();
        if let Some(packed) = matrices.and_then(|all| PackedLinear::new(&all, format)) {
            self.packed.insert(names[0].clone(), packed);
            for name in names {
                self.tensors.remove(name);
            }
        }
    }

    /// [`Weights::pack`] of a matrix that is held here alone, without holding it twice.
    pub(crate) fn pack_whole(&mut self, name: &str, format: WeightFormat) {
        match self.tensors.remove(name) {
            Some(Leaf::Matrix(matrix)) => match PackedLinear::consuming(matrix, format) {
                Ok(packed) => {
                    self.packed.insert(name.to_owned(), packed);
                }
                Err(matrix) => {
                    self.tensors.insert(name.to_owned(), Leaf::Matrix(*matrix));
                }
            },
            Some(other) => {
                self.tensors.insert(name.to_owned(), other);
            }
            None => {}
        }
    }

    /// The same weights, of which sampling alone reads.
    #[must_use]
    pub(crate) fn for_sampling(mut self) -> Self {
        self.for_sampling = true;
        self
    }

    pub(crate) fn are_for_sampling(&self) -> bool {
        self.for_sampling
    }

    /// What [`Weights::pack`] made of the matrices of which this is the first.
    pub(crate) fn packed(&self, name: &str) -> Option<&PackedLinear> {
        self.packed.get(name)
    }

    /// The same weights with dropout in the adapters, for training passes.
    #[must_use]
    pub fn with_dropout(mut self, key: DropoutKey) -> Self {
        self.dropout = Some(key);
        self
    }

    /// The same weights, whose forward passes keep only what goes into each layer (`recompute`): the
    /// layers run again in [`crate::Decoder::gradients`].
    #[must_use]
    pub fn with_checkpointing(mut self, recompute: bool) -> Self {
        self.passes = (recompute && !self.trainable.is_empty()).then(Passes::default);
        self
    }

    /// What forward passes leave for the backward pass, where layers run again in it.
    pub(crate) fn passes(&self) -> Option<&Passes> {
        self.passes.as_ref()
    }

    /// The same weights off autodiff, with the same dropout.
    pub(crate) fn plain(&self) -> Self {
        let off = |(name, leaf): (&String, &Leaf)| {
            let leaf = match self.trainable.contains(name) {
                true => leaf.clone().plain(),
                false => leaf.clone(),
            };
            (name.clone(), leaf)
        };
        Self {
            tensors: self.tensors.iter().map(off).collect(),
            trainable: Vec::new(),
            dropout: self.dropout,
            packed: HashMap::new(),
            for_sampling: false,
            passes: None,
        }
    }

    /// Some of the weights for a graph of their own, with the same dropout.
    pub(crate) fn leaves(&self, wanted: impl Fn(&str) -> bool) -> Self {
        let all = self.tensors.iter().filter(|(name, _)| wanted(name));
        let fresh = all.map(|(name, leaf)| {
            let leaf = match self.trainable.contains(name) {
                true => leaf.clone().plain().tracked(),
                false => leaf.clone(),
            };
            (name.clone(), leaf)
        });
        let trainable = self.trainable.iter().filter(|name| wanted(name));
        Self {
            tensors: fresh.collect(),
            trainable: trainable.cloned().collect(),
            dropout: self.dropout,
            packed: HashMap::new(),
            for_sampling: false,
            passes: None,
        }
    }

    /// True if one of these parameters is trained.
    pub(crate) fn trains(&self, wanted: impl Fn(&str) -> bool) -> bool {
        self.trainable.iter().any(|name| wanted(name))
    }

    pub(crate) fn dropout(&self) -> Option<DropoutKey> {
        self.dropout
    }

    /// True if there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// A tensor with one dimension, if it is there.
    pub(crate) fn vector(&self, name: &str) -> Option<Tensor<1>> {
        match self.tensors.get(name) {
            Some(Leaf::Vector(x)) => Some(x.clone()),
            _ => None,
        }
    }

    /// A tensor with two dimensions, if it is there.
    pub(crate) fn matrix(&self, name: &str) -> Option<Tensor<2>> {
        match self.tensors.get(name) {
            Some(Leaf::Matrix(x)) => Some(x.clone()),
            _ => None,
        }
    }

    /// A backward pass from `loss`, whose gradients of the trainable parameters are added to `sums`.
    /// Returns those of other tensors.
    pub(crate) fn backward(&self, loss: Tensor<1>, sums: &mut GradientSums) -> Gradients {
        let (mut names, mut totals) = (Vec::new(), Vec::new());
        for name in &self.trainable {
            let Leaf::Matrix(leaf) = &self.tensors[name] else {
                continue;
            };
            let total = match sums.take(name) {
                Some(sum) => match GradientTotal::new(leaf, sum.reshape(leaf.dims())) {
                    Ok(total) => total,
                    Err(sum) => {
                        sums.add(name, flat(*sum));
                        continue;
                    }
                },
                // Read twice in a pass where it is the head too: both add to one sum.
                None if name == EMBEDDING => match GradientTotal::zeros(leaf) {
                    Some(total) => total,
                    None => continue,
                },
                None => continue,
            };
            names.push(name);
            totals.push(total);
        }
        let mut grads = backward_into(loss, &mut totals);
        for (name, total) in names.into_iter().zip(totals) {
            sums.add(name, flat(total.into_sum()));
        }
        for name in &self.trainable {
            if let Some(grad) = self.tensors[name].take_gradient(&mut grads) {
                sums.add(name, grad);
            }
        }
        grads
    }

    /// Zeros for parameters that no pass gave a gradient.
    pub(crate) fn complete(&self, sums: &mut GradientSums) {
        for name in &self.trainable {
            if !sums.has(name) {
                let zeros = match &self.tensors[name] {
                    Leaf::Vector(x) => x.clone().inner().zeros_like(),
                    Leaf::Matrix(x) => flat(x.clone().inner().zeros_like()),
                };
                sums.add(name, zeros);
            }
        }
    }

    /// No gradients yet.
    pub(crate) fn no_gradients(&self) -> GradientSums {
        let none = |name: &String| (name.clone(), None);
        GradientSums(self.trainable.iter().map(none).collect())
    }
}

/// Gradients of the trainable parameters, in their order, summed over backward passes.
#[derive(Clone, Debug, Default)]
pub struct GradientSums(Vec<(String, Option<Tensor<1>>)>);

impl GradientSums {
    fn take(&mut self, name: &str) -> Option<Tensor<1>> {
        self.of(name).and_then(Option::take)
    }

    fn has(&mut self, name: &str) -> bool {
        self.of(name).is_some_and(|sum| sum.is_some())
    }

    fn of(&mut self, name: &str) -> Option<&mut Option<Tensor<1>>> {
        let known = |(known, _): &&mut (String, Option<Tensor<1>>)| known == name;
        self.0.iter_mut().find(known).map(|(_, sum)| sum)
    }

    fn add(&mut self, name: &str, grad: Tensor<1>) {
        if let Some(sum) = self.of(name) {
            *sum = Some(match sum.take() {
                Some(sum) => sum + grad,
                None => grad,
            });
        }
    }

    /// True before the first backward pass.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One gradient a parameter.
    pub fn into_gradients(self) -> Vec<(String, Tensor<1>)> {
        let whole = |(name, sum): (String, Option<Tensor<1>>)| sum.map(|sum| (name, sum));
        self.0.into_iter().filter_map(whole).collect()
    }
}
