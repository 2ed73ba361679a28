"""Small mistakes made on purpose in the product, one at a time: does a test find each of them?"""
