"""Pictures and labels, from MNIST's files or folders of photographs, as a training takes them."""
