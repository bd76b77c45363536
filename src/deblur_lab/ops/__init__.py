"""Operations on image tensors that networks, losses and metrics share; they know nothing of any of them."""
